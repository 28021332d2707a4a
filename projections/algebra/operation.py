"""The column algebra: a projection says once how each column is folded, and every form of the fold is compiled from it.

The operations are associative over a run's events in version order, so folding one event into a row, all events
from nothing and the events after a snapshot give the same row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from runfold.projections.declared.sources import Source

Row = dict[str, Any]
On = frozenset[str] | None


@dataclass(frozen=True, slots=True)
class Fold:
    """How one column follows from a run's events.

    `source` is a column of the event, `on` the event types that count (None: all), `default` the SQL literal of the
    column before any event and `start` the same value in Python.

    Only in a `Projection`: `source` may also be a `Source`; `present` and `absent` name a column of the event that must
    have a value, or none, for the event to count; `at` gives other sources for some of the key, so that an event counts
    in another row.
    """

    operation: str
    source: str | Source
    on: On = None
    default: str = "NULL"
    start: Any = None
    present: str | None = None
    absent: str | None = None
    at: Mapping[str, str | Source] | None = None

    def matches(self, event: Mapping[str, Any]) -> bool:
        """Tell whether the event counts for this column."""
        return self.on is None or event["type"] in self.on


def last(
    source: str | Source,
    on: Iterable[str] | None = None,
    default: str = "NULL",
    start: Any = None,
    **only: Any,
) -> Fold:
    """Take the newest value that is not null."""
    return Fold("last", source, _types(on), default, start, **only)


def assign(source: str | Source, on: Iterable[str], **only: Any) -> Fold:
    """Take the value of the newest counted event, null included: such an event may clear the column."""
    return Fold("assign", source, _types(on), **only)


def first(source: str | Source, on: Iterable[str] | None = None, **only: Any) -> Fold:
    """Take the oldest value that is not null."""
    return Fold("first", source, _types(on), **only)


def once(source: str | Source, on: Iterable[str], **only: Any) -> Fold:
    """Take the value of the only counted event."""
    return Fold("once", source, _types(on), **only)


def total(source: str | Source, on: Iterable[str] | None = None, **only: Any) -> Fold:
    """Add up, from zero."""
    return Fold("sum", source, _types(on), "0", 0, **only)


def count(on: Iterable[str] | None = None, **only: Any) -> Fold:
    """Count the events."""
    return Fold("count", "version", _types(on), "0", 0, **only)


def greatest(source: str | Source, on: Iterable[str] | None = None, **only: Any) -> Fold:
    """Take the largest value."""
    return Fold("max", source, _types(on), **only)


def least(source: str | Source, on: Iterable[str] | None = None, **only: Any) -> Fold:
    """Take the smallest value."""
    return Fold("min", source, _types(on), **only)


def _types(on: Iterable[str] | None) -> On:
    return None if on is None else frozenset(on)


# -- Python ---------------------------------------------------------------------------------------------------------


def _newest(old: Any, new: Any) -> Any:
    return old if new is None else new


_STEP: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "last": _newest,
    "assign": lambda _, new: new,
    "first": lambda old, new: _newest(new, old),
    "once": lambda old, new: _newest(new, old),
    "sum": lambda old, new: old + (new or 0),
    "count": lambda old, _: old + 1,
    "max": lambda old, new: new if old is None else old if new is None else max(old, new),
    "min": lambda old, new: new if old is None else old if new is None else min(old, new),
}


def fold(
    columns: Mapping[str, Fold], events: Iterable[Mapping[str, Any]], row: Row | None = None
) -> Row:
    """Fold events, in version order, into a row; `row` is where to start from."""
    row = {name: column.start for name, column in columns.items()} if row is None else dict(row)
    for event in events:
        for name, column in columns.items():
            if column.matches(event):
                row[name] = _STEP[column.operation](row[name], event.get(str(column.source)))
    return row


# -- SQL ------------------------------------------------------------------------------------------------------------


def step_sql(
    column: Fold, old: str, event: str, flags: Mapping[frozenset[str], str] | None = None
) -> str:
    """Compile the fold of one event into the value `old`; `flags` names conditions that are computed already."""
    new = f"{event}.{column.source}"
    when = flags[column.on] if flags and column.on is not None else condition_sql(column.on, event)
    if column.operation in {"sum", "count"}:
        plus = "1" if column.operation == "count" else f"coalesce({new}, 0)"
        return f"{old} + " + (f"CASE WHEN {when} THEN {plus} ELSE 0 END" if when else plus)
    if column.operation == "assign":
        return f"CASE WHEN {when} THEN {new} ELSE {old} END"
    value = f"CASE WHEN {when} THEN {new} END" if when else new
    match column.operation:
        case "last":
            return f"coalesce({value}, {old})"
        case "first" | "once":
            return f"coalesce({old}, {value})"
        case "max":
            return f"greatest({old}, {value})"
        case _:
            return f"least({old}, {value})"


def aggregate_sql(column: Fold, event: str) -> str:
    """Compile the fold of a group of events."""
    value, when = f"{event}.{column.source}", condition_sql(column.on, event)
    match column.operation:
        case "sum":
            compiled = f"coalesce(sum({value}){_filter(when)}, 0)"
        case "count":
            compiled = f"count(*){_filter(when)}::int"
        case "max" | "once":
            compiled = f"max({value}){_filter(when)}"
        case "min":
            compiled = f"min({value}){_filter(when)}"
        case "first":
            compiled = _nth(value, event, "ASC", when, f"{value} IS NOT NULL")
        case "assign":
            compiled = _nth(value, event, "DESC", when)
        case _:
            compiled = _nth(value, event, "DESC", when, f"{value} IS NOT NULL")
    if column.default != "NULL" and column.operation not in {"sum", "count"}:
        return f"coalesce({compiled}, {column.default})"
    return compiled


def _nth(value: str, event: str, order: str, *conditions: str) -> str:
    return f"(array_agg({value} ORDER BY {event}.version {order}){_filter(*conditions)})[1]"


def _filter(*conditions: str) -> str:
    given = " AND ".join(filter(None, conditions))
    return f" FILTER (WHERE {given})" if given else ""


def condition_sql(on: On, event: str) -> str:
    """Compile the question whether an event is of one of these types; empty when every type counts."""
    if on is None:
        return ""
    if len(on) == 1:
        return f"{event}.type = '{next(iter(on))}'"
    return f"{event}.type IN ({', '.join(repr(type_) for type_ in sorted(on))})"
