"""Compiles folds over an event's columns into SQL: of one event into a row, and of a group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from runfold.projections.algebra.fold import Fold, Placed, Types
from runfold.projections.algebra.source import as_source

WIDTH: Final = 100
"""The longest line of compiled SQL."""


def start_sql(column: Fold) -> str:
    """Compile the column before any event."""
    return "NULL" if column.start is None else str(column.start)


def step_sql(
    column: Fold, old: str, event: str, flags: Mapping[frozenset[str], str] | None = None
) -> str:
    """Compile the fold of one event into the value `old`.

    `flags` names conditions that the statement has computed already.
    """
    when = flags[column.on] if flags and column.on is not None else condition_sql(column.on, event)
    return column.operation.step_sql(old, f"{event}.{column.source}", when)


def aggregate_sql(column: Fold, event: str) -> str:
    """Compile the fold of a group of events of one run."""
    facts = Placed(f"{event}.{column.source}", f"{event}.version")
    when, type_ = condition_sql(column.on, event), as_source(column.source).type
    compiled = column.operation.aggregate_sql(facts, when, type_)
    return compiled if column.default is None else f"coalesce({compiled}, {column.default})"


def condition_sql(on: Types, event: str) -> str:
    """Compile whether an event is of one of these types; empty when every type counts."""
    if on is None:
        return ""
    if len(on) == 1:
        return f"{event}.type = '{next(iter(on))}'"
    return f"{event}.type IN ({', '.join(repr(type_) for type_ in sorted(on))})"


def wrapped(sql: str) -> str:
    """Break lines of compiled SQL that are too long at their last space outside of a literal."""
    return "\n".join(part for line in sql.split("\n") for part in _broken(line))


def _broken(line: str) -> list[str]:
    if len(line) <= WIDTH or line.lstrip().startswith("--"):
        return [line]
    indent = len(line) - len(line.lstrip())
    spaces = [
        place
        for place in range(indent + 1, WIDTH + 1)
        if line[place] == " " and line[:place].count("'") % 2 == 0
    ]
    if not spaces:
        return [line]
    rest = " " * (indent + 2) + line[spaces[-1] + 1 :]
    return [line[: spaces[-1]], *_broken_rest(rest, indent + 2)]


def _broken_rest(rest: str, indent: int) -> list[str]:
    # What follows the first line stays at one indentation, however often it is broken.
    first, *more = _broken(rest)
    return [first, *(" " * indent + line.lstrip() for line in more)]
