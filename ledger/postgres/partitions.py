"""Partitions of events: opening a ledger and the reaper make months ahead of their use."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from runfold.ledger.errors import LedgerError
from runfold.ledger.postgres.connections import Pool, fetch

MAKE: Final = "SELECT ledger.make_partitions()"
# Of the next month too: a submit that makes its own takes a lock until its transaction ends.
_HAS_MONTHS: Final = """
SELECT count(to_regclass('ledger.event_' || to_char(month, 'YYYY_MM'))) = 2 AS has_months
FROM (VALUES (clock_timestamp() AT TIME ZONE 'UTC'),
  (clock_timestamp() AT TIME ZONE 'UTC' + interval '1 month')) AS months (month)
"""


async def make_if_missing(pool: Pool) -> None:
    """Make the partitions of this month and those after it, if one is missing and the login may."""
    [row] = await fetch(pool, _HAS_MONTHS)
    if not row["has_months"]:
        with suppress(LedgerError):  # the first submit makes its own, or says why it cannot
            await fetch(pool, MAKE)
