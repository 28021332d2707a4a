"""The months of a database: which are in it, which are in files, and who holds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from runfold.ledger.archive.holds import holds
from runfold.ledger.archive.record import Archive, archives
from runfold.ledger.postgres.connections import Pool, fetch

_PARTITIONS: Final = """
SELECT replace(substr(part.relname, 7), '_', '-') AS month,
  pg_total_relation_size(part.oid) AS bytes
FROM pg_inherits AS child JOIN pg_class AS part ON part.oid = child.inhrelid
WHERE child.inhparent = 'ledger.event'::regclass
"""


@dataclass(frozen=True, slots=True)
class MonthStatus:
    """The state of a month: open, exported (and still in the database), detached, or attached."""

    month: str
    state: str
    bytes: int | None
    """What its events take in the database, indexes included; None when they are not there."""
    archive: Archive | None
    holds: int


async def months(pool: Pool) -> list[MonthStatus]:
    """Return every month that has a partition or a file, oldest first."""
    sizes = await partition_sizes(pool)
    exported = {archive.month: archive for archive in await archives(pool)}
    held = [row["month"] for row in await holds(pool)]
    return [
        MonthStatus(
            month,
            exported[month].state if month in exported else "open",
            sizes.get(month),
            exported.get(month),
            held.count(month),
        )
        for month in sorted({*sizes, *exported})
    ]


async def partition_sizes(source: Any) -> dict[str, int]:
    """Return the months whose events are in the database, each with its size in bytes."""
    return {row["month"]: row["bytes"] for row in await fetch(source, _PARTITIONS)}
