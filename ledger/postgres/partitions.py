"""Partitions of events: a reaper makes months ahead, a first writer makes a missing one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeVar

from runfold.ledger.errors import LedgerError, MissingPartition
from runfold.ledger.postgres.connections import Pool, fetch

MAKE: Final = "SELECT ledger.make_partitions()"
_HAS_MONTH: Final = """
SELECT to_regclass('ledger.event_' || to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY_MM'))
  IS NOT NULL AS has_month
"""
T = TypeVar("T")


async def make_if_missing(pool: Pool) -> None:
    """Make this month's partition and those after it, if it is missing and the login may."""
    [row] = await fetch(pool, _HAS_MONTH)
    if not row["has_month"]:
        with suppress(LedgerError):  # the first submit says so, with the remedy
            await fetch(pool, MAKE)


async def with_partition(pool: Pool, call: Callable[[], Awaitable[T]]) -> T:
    """Make a call; if it meets a missing partition, make the partition and call again.

    Raises MissingPartition if the login may not, or if the month is archived.
    """
    try:
        return await call()
    except MissingPartition as error:
        try:
            await fetch(pool, MAKE)
        except LedgerError as refused:
            raise error from refused
        return await call()
