"""The declaration of a projection: a table whose every column says how it is folded, or a Python function for the rest."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any, Final, TypeAlias

import asyncpg

from runfold.ledger.errors import InvalidValue
from runfold.ledger.events import CATALOGUE, Event, check_user_type
from runfold.ledger.lifecycle import RESERVED
from runfold.ledger.validation import check_int
from runfold.projections.algebra.operation import Fold
from runfold.projections.declared.sources import Source, as_source

Handler: TypeAlias = Callable[["asyncpg.Connection[Any]", Sequence[Event]], Awaitable[None]]

MAX_COLUMNS: Final = 200
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,40}")
_VERSIONED: Final = re.compile(r".*_v[0-9]+")
_ADDS_UP: Final = {
    "int": "bigint",
    "bigint": "numeric",
    "numeric": "numeric",
    "interval": "interval",
}
_HAS_ORDER: Final = frozenset(
    {"text", "int", "bigint", "numeric", "date", "timestamptz", "interval"}
)
_IS_KEY: Final = frozenset(
    {"text", "int", "bigint", "numeric", "boolean", "uuid", "date", "timestamptz"}
)
_ORDERED: Final = frozenset({"last", "first", "assign"})


@dataclass(frozen=True, eq=False)
class Projection:
    """What is folded from the events, under which key; checked as it is made, and never changed without a new `version`.

    `key` names the table's key and `columns` the rest: a row for every key that an event has (an event whose key has a
    null in it counts nowhere). Instead of both, `apply` is called with the events, in order, and with the connection
    whose transaction also moves the checkpoint: what it does there happens exactly once for every event. `on` are the
    event types that `apply` wants; None means all but heartbeats. `derived` are more columns of the view: SQL over the row.

    Raises InvalidValue, naming the column, for what cannot be folded.
    """

    name: str
    version: int = 1
    key: Mapping[str, str | Source] = field(default_factory=dict)
    columns: Mapping[str, Fold] = field(default_factory=dict)
    apply: Handler | None = None
    on: Iterable[str] | None = None
    derived: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the declaration."""
        _check_name("projection", self.name)
        if _VERSIONED.fullmatch(self.name):
            raise InvalidValue(
                "projection", self.name, "must not end like a version: give `version` instead"
            )
        check_int("version", self.version, least=1, most=32_767)
        if self.apply is not None:
            if self.key or self.columns:
                raise InvalidValue(
                    "projection",
                    self.name,
                    "has a table of its own or a function to apply, not both",
                )
            check_types(self.on)
            return
        if self.on is not None:
            raise InvalidValue(
                "projection",
                self.name,
                "`on` is for `apply`; a column says itself which events count",
            )
        if not self.key or not self.columns or len(self.columns) > MAX_COLUMNS:
            raise InvalidValue(
                "projection",
                self.name,
                f"needs a key and 1 to {MAX_COLUMNS} columns, or a function to apply",
            )
        for name, source in self.key.items():
            _check_name("key column", name)
            _check_type(name, as_source(source).type, _IS_KEY, "be part of a key")
        for name, fold in self.columns.items():
            self._check_column(name, fold)
        for name in self.derived:
            _check_name("derived column", name)
            if name in self.key or name in self.columns:
                raise InvalidValue("derived column", name, "is a column already")

    def _check_column(self, name: str, fold: Fold) -> None:
        _check_name("column", name)
        if name in self.key:
            raise InvalidValue("column", name, "is part of the key already")
        check_types(fold.on)
        type_ = as_source(fold.source).type
        if fold.operation == "sum":
            _check_type(name, type_, frozenset(_ADDS_UP), "be added up")
        if fold.operation in {"max", "min"}:
            _check_type(name, type_, _HAS_ORDER, "be compared")
        if fold.default not in {"NULL", "0"} or (
            fold.default == "0" and fold.operation not in {"sum", "count"}
        ):
            raise InvalidValue("column", name, "a default belongs to run_state only: leave it out")
        for other in (fold.present, fold.absent):
            if other is not None:
                as_source(other)
        for part, source in (fold.at or {}).items():
            if part not in self.key:
                raise InvalidValue(
                    "column", name, f"counts at another {part!r}, which is no part of the key"
                )
            if as_source(source).type != as_source(self.key[part]).type:
                raise InvalidValue("column", name, f"counts at another {part!r} of another type")

    @property
    def table(self) -> str:
        """The table's name in SQL; readers use `view`."""
        return f'projection."{self.name}_v{self.version}"'

    @property
    def view(self) -> str:
        """The name in SQL under which the current version is read."""
        return f'projection."{self.name}"'

    @cached_property
    def types(self) -> frozenset[str] | None:
        """The event types that count anywhere; None means all, for `apply` all but heartbeats."""
        if self.apply is not None:
            return None if self.on is None else frozenset(self.on)
        given = [fold.on for fold in self.columns.values()]
        return None if None in given else frozenset().union(*(on for on in given if on))

    def column_types(self) -> dict[str, str]:
        """Give the type of every column of the table, in order: the key, the columns, the positions that order them.

        What is newest or oldest is told by position, so that batches may be folded in any order with the same result.
        """
        types = {name: as_source(source).type for name, source in self.key.items()}
        types |= {name: column_type(fold) for name, fold in self.columns.items()}
        return types | {
            ordered(name): "bigint"
            for name, fold in self.columns.items()
            if fold.operation in _ORDERED
        }

    def digest(self) -> str:
        """Name the declaration by its content: two that fold differently differ."""
        content: Any = (self.name, self.version)
        if self.apply is None:
            content = (
                *content,
                *map(_written, self.key.items()),
                *map(_written, self.columns.items()),
                *sorted(self.derived.items()),
            )
        return sha256(repr(content).encode()).hexdigest()


def column_type(fold: Fold) -> str:
    """Give the SQL type that a column of this fold has."""
    if fold.operation == "count":
        return "bigint"
    type_ = as_source(fold.source).type
    return _ADDS_UP[type_] if fold.operation == "sum" else type_


def ordered(name: str) -> str:
    """Name the column that keeps the position of the event a column's value is from."""
    return f"{name}_position"


def check_types(on: Iterable[str] | None) -> None:
    """Raise InvalidValue for an event type that cannot exist."""
    for type_ in on or ():
        if type_ not in CATALOGUE:
            if type_.split(".", 1)[0] in RESERVED:
                raise InvalidValue(
                    "event type",
                    type_,
                    "is none of the ledger's types; see `runfold.ledger.events.CATALOGUE`",
                )
            check_user_type(type_)


def _check_name(what: str, name: str) -> None:
    if not _NAME.fullmatch(name) or name.endswith("_position"):
        raise InvalidValue(
            what,
            name,
            "use 1 to 41 lower-case letters, digits and _, starting with a letter and not ending in _position",
        )


def _check_type(name: str, type_: str, fitting: frozenset[str], verb: str) -> None:
    if type_ not in fitting:
        raise InvalidValue(
            "column",
            name,
            f"is of type {type_}, which cannot {verb}; these can: {', '.join(sorted(fitting))}",
        )


def _written(item: tuple[str, Any]) -> str:
    """Write a named part of a declaration, the same in every process: sets have no order of their own."""
    name, part = item
    if not isinstance(part, Fold):
        return f"{name}={as_source(part)!r}"
    on = None if part.on is None else sorted(part.on)
    at = sorted(f"{key}={as_source(source)!r}" for key, source in (part.at or {}).items())
    return f"{name}={part.operation}({as_source(part.source)!r}, {on}, {part.present}, {part.absent}, {at})"
