"""What a projection may declare; every rule raises InvalidValue and names what would be right."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from runfold.ledger.errors import InvalidValue
from runfold.ledger.validation import check_int
from runfold.projections.algebra.fold import NarrowedFold
from runfold.projections.algebra.source import Source, as_source
from runfold.projections.declared.derived import check_derived
from runfold.projections.declared.sources import EACH, check_column, check_types
from runfold.projections.state.run_state import TABLE

MAX_COLUMNS: Final = 200
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,40}")
_VERSIONED: Final = re.compile(r".*_v[0-9]+")
_APPLY: Final = "`apply` is an async function of (connection, events)"
_KEY_TYPES: Final = frozenset(
    {"text", "int", "bigint", "numeric", "boolean", "uuid", "date", "timestamptz"}
)


def check_identity(name: str, version: int) -> None:
    """Check a projection's name and version."""
    _check_name("projection", name)
    if _VERSIONED.fullmatch(name):
        raise InvalidValue(
            "projection", name, "must not end like a version: give `version` instead"
        )
    if name == TABLE:
        raise InvalidValue("projection", name, "is the ledger's own: choose another name")
    check_int("version", version, least=1, most=32_767)


def check_apply(name: str, apply: Callable[..., Any], *, has_table: bool) -> None:
    """Check that a function is async and takes (connection, events), and has no table."""
    if has_table:
        raise InvalidValue(
            "projection", name, "has a table of its own or a function to apply, not both"
        )
    call = apply if inspect.isroutine(apply) else getattr(apply, "__call__", apply)  # noqa: B004
    if not inspect.iscoroutinefunction(apply) and not inspect.iscoroutinefunction(call):
        raise InvalidValue("projection", name, f"{_APPLY}: its function is not async")
    try:
        inspect.signature(apply).bind(None, ())
    except TypeError:
        raise InvalidValue("projection", name, f"{_APPLY}: its function takes others") from None
    first = next(iter(inspect.signature(apply).parameters), "")
    if first.lstrip("_").startswith("event"):
        raise InvalidValue("projection", name, f"{_APPLY}, in this order")


def check_table(
    name: str,
    on: Iterable[str] | None,
    key: Mapping[str, str | Source],
    columns: Mapping[str, NarrowedFold],
    derived: Mapping[str, str],
) -> None:
    """Check the key, the columns and what is derived from them."""
    if on is not None:
        raise InvalidValue(
            "projection", name, "`on` is for `apply`; a column says itself which events count"
        )
    if not key or not columns or len(columns) > MAX_COLUMNS:
        raise InvalidValue(
            "projection",
            name,
            f"needs a key and 1 to {MAX_COLUMNS} columns, or a function to apply",
        )
    if sum(_is_many(source) for source in key.values()) > 1:
        raise InvalidValue("projection", name, "has more than one `each` in its key")
    for part, source in key.items():
        _check_name("key column", part)
        _check_type(part, as_source(source).type, _KEY_TYPES, "be part of a key")
    for column, narrowed in columns.items():
        _check_column(column, narrowed, key)
    for column in derived:
        _check_name("derived column", column)
        if column in key or column in columns:
            raise InvalidValue("derived column", column, "is a column already")
        check_derived(column, derived[column], (*key, *columns))


def _check_column(name: str, column: NarrowedFold, key: Mapping[str, str | Source]) -> None:
    _check_name("column", name)
    if name in key:
        raise InvalidValue("column", name, "is part of the key already")
    fold = column.fold
    check_types(fold.on)
    type_ = as_source(fold.source).type
    if fold.operation.types is not None:
        _check_type(name, type_, fold.operation.types, fold.operation.purpose)
    if fold.default is not None:
        raise InvalidValue("column", name, "a default belongs to run_state only: leave it out")
    for other in (column.present, column.absent):
        if other is not None:
            check_column(other)
    if _is_many(fold.source) or any(map(_is_many, (column.key or {}).values())):
        raise InvalidValue("column", name, "cannot fold `each`, which belongs into the key")
    for part, source in (column.key or {}).items():
        if part not in key:
            raise InvalidValue(
                "column", name, f"counts at another {part!r}, which is not part of the key"
            )
        if as_source(source).type != as_source(key[part]).type:
            raise InvalidValue("column", name, f"counts at another {part!r} of another type")


def _is_many(source: str | Source) -> bool:
    return as_source(source).sql.startswith(EACH)


def _check_name(what: str, name: str) -> None:
    if not _NAME.fullmatch(name) or name.endswith("_position"):
        raise InvalidValue(
            what,
            name,
            "use 1 to 41 lower-case letters, digits and _, "
            "starting with a letter and not ending in _position",
        )


def _check_type(name: str, type_: str, fitting: frozenset[str], purpose: str) -> None:
    if type_ not in fitting:
        raise InvalidValue(
            "column",
            name,
            f"is of type {type_}, which cannot {purpose}; these can: {', '.join(sorted(fitting))}",
        )
