"""Rows of commands as the parallel arrays that the SQL functions take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from runfold.ledger.errors import InvalidValue

MAX_BATCH: Final = 10_000
"""Commands in one call."""


def columns(rows: Sequence[tuple[object, ...]]) -> list[Sequence[object] | None]:
    """Return the rows as parallel arrays; raise InvalidValue for more than 10,000.

    A column that holds nothing is None, so that neither side builds an array of nulls.
    """
    if len(rows) > MAX_BATCH:
        raise InvalidValue(
            "batch", len(rows), f"a call takes at most {MAX_BATCH:,} commands: split it"
        )
    nothing = (None,) * len(rows)
    return [None if column == nothing else column for column in zip(*rows, strict=True)]


def check_distinct(what: str, values: Sequence[object]) -> None:
    """Raise InvalidValue when a run or a key is named twice in one call."""
    if len(set(values)) != len(values):
        twice = next(value for value in values if values.count(value) > 1)
        raise InvalidValue(
            what, str(twice), "is named twice in one call: make two calls, in the order you mean"
        )
