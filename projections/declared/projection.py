"""The declaration of a projection: a table whose columns are folds, or a Python function."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any, Final, TypeAlias

import asyncpg

from runfold.ledger.events import Event
from runfold.projections.algebra.fold import Fold, NarrowedFold, types_of
from runfold.projections.algebra.operation import Ordered
from runfold.projections.algebra.source import Source, as_source
from runfold.projections.declared import checks
from runfold.projections.declared.sources import check_types

IN_FORCE: Final = "format('projection.%s_v%s', projection.name, projection.version)"
"""The table that a row `projection` of `ledger.projection` is about; see `Projection.table`."""
Apply: TypeAlias = Callable[["asyncpg.Connection[Any]", Sequence[Event]], Awaitable[None]]
"""An async function of the connection and of one or more events, in this order."""


@dataclass(frozen=True, eq=False)
class Projection:
    """What is folded from the events, under which key; a change needs a new `version`.

    `key` names the table's key and `columns` the rest: a row for every key that an event has (an
    event whose key has a null in it counts nowhere). `derived` are more columns of the view: SQL
    over the row.

    Instead of all of these, `apply(connection, events)` is awaited with the connection whose
    transaction also moves the checkpoint and with one or more events, in order: what it does there
    happens exactly once for every event. `on` are the event types that `apply` wants; None means
    all but heartbeats.

    Raises InvalidValue, naming the column, for what cannot be folded.
    """

    name: str
    version: int = 1
    key: Mapping[str, str | Source] = field(default_factory=dict)
    columns: Mapping[str, Fold | NarrowedFold] = field(default_factory=dict)
    apply: Apply | None = None
    on: Iterable[str] | None = None
    derived: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the declaration."""
        checks.check_identity(self.name, self.version)
        if self.apply is not None:
            checks.check_apply(self.name, self.apply, has_table=bool(self.key or self.columns))
            check_types(types_of(self.on))
        else:
            checks.check_table(self.name, self.on, self.key, self.folds, self.derived)

    @cached_property
    def folds(self) -> dict[str, NarrowedFold]:
        """The columns, each with what narrows it down."""
        return {
            name: column.where() if isinstance(column, Fold) else column
            for name, column in self.columns.items()
        }

    @property
    def relation(self) -> str:
        """The table's name within schema `projection`."""
        return f"{self.name}_v{self.version}"

    @property
    def table(self) -> str:
        """The table's name in SQL; readers use `view`."""
        return f"projection.{self.relation}"

    @property
    def view(self) -> str:
        """The name in SQL under which the current version is read."""
        return f'projection."{self.name}"'

    @cached_property
    def types(self) -> frozenset[str] | None:
        """The event types that count anywhere; None means all, for `apply` all but heartbeats."""
        if self.apply is not None:
            return types_of(self.on)
        types = [column.fold.on for column in self.folds.values()]
        return None if None in types else frozenset().union(*(on for on in types if on))

    def column_types(self) -> dict[str, str]:
        """Return the type of every column of the table: key, columns, and their positions.

        What is newest or oldest is decided by position, so that batches may be folded in any order
        with the same result.
        """
        types = {name: as_source(source).type for name, source in self.key.items()}
        types |= {name: column_type(column.fold) for name, column in self.folds.items()}
        return types | {
            position_name(name): "bigint"
            for name, column in self.folds.items()
            if isinstance(column.fold.operation, Ordered)
        }

    @cached_property
    def digest(self) -> str:
        """The digest of the declaration: two that fold differently differ."""
        content: Any = (self.name, self.version)
        if self.apply is None:
            content = (
                *content,
                *(f"{name}={as_source(source)!r}" for name, source in self.key.items()),
                *(_written(name, column) for name, column in self.folds.items()),
                *sorted(self.derived.items()),
            )
        return sha256(repr(content).encode()).hexdigest()


def column_type(fold: Fold) -> str:
    """Return the SQL type of the column of a fold."""
    return fold.operation.column_type(as_source(fold.source).type)


def position_name(name: str) -> str:
    """Return the name of the column that keeps the position of a value's event."""
    return f"{name}_position"


def _written(name: str, column: NarrowedFold) -> str:
    """Write a column, the same in every process: sets have no order of their own."""
    fold = column.fold
    on = None if fold.on is None else sorted(fold.on)
    key = sorted(f"{part}={as_source(source)!r}" for part, source in (column.key or {}).items())
    narrowed = f"{column.present}, {column.absent}, {key}"
    return f"{name}={fold.operation.name}({as_source(fold.source)!r}, {on}, {narrowed})"
