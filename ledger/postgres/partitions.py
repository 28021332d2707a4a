"""Partitions of events: a reaper makes months ahead, a first writer makes a missing one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final, TypeVar

from runfold.ledger.errors import LedgerError, MissingPartition
from runfold.ledger.postgres.connections import Connection, Pool, fetch

MAKE: Final = "SELECT ledger.make_partitions()"
# Of the next month too: this program's clock may be a little off.
_HAS_MONTHS: Final = """
SELECT count(to_regclass('ledger.event_' || to_char(month, 'YYYY_MM'))) = 2 AS has_months
FROM (VALUES (clock_timestamp() AT TIME ZONE 'UTC'),
  (clock_timestamp() AT TIME ZONE 'UTC' + interval '1 month')) AS months (month)
"""
T = TypeVar("T")


async def make_if_missing(pool: Pool) -> None:
    """Make the partitions of this month and those after it, if one is missing and the login may."""
    [row] = await fetch(pool, _HAS_MONTHS)
    if not row["has_months"]:
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


class Months:
    """Sees to the partitions once a month for callers that bring a transaction of their own.

    In it a failed statement cannot be made again, so what is missing is made before.
    """

    def __init__(self) -> None:
        self._seen_to: tuple[int, int] | None = None

    async def joining(self, connection: Connection, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call in the caller's transaction, once its month is seen to.

        Raises MissingPartition, and what the statements raise.
        """
        now = datetime.now(UTC)
        if self._seen_to != (now.year, now.month):
            [row] = await fetch(connection, _HAS_MONTHS)
            if not row["has_months"]:
                await fetch(connection, MAKE)
            self._seen_to = (now.year, now.month)
        try:
            return await call()
        except MissingPartition:
            self._seen_to = None  # made in a transaction that was rolled back
            raise
