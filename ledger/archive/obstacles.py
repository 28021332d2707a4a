"""What stands in the way of an export or a detach: unfinished runs, holds, readers behind."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from runfold.ledger.archive.holds import holds
from runfold.ledger.archive.record import archive_of
from runfold.ledger.archive.status import partition_sizes
from runfold.ledger.months import bounds, check_month, month_of, start_of, table_of
from runfold.ledger.postgres.connections import FAILURES, Pool
from runfold.ledger.postgres.errors import translated

_OPEN: Final = (
    "SELECT count(*) FROM ledger.run_state "
    "WHERE run_id >= $1 AND run_id < $2 AND completed_at IS NULL"
)
_NEWEST: Final = """
SELECT count(*) AS events, max(e.position) AS last_position,
  max(e.txid) FILTER (WHERE e.position > split_part(g.start, '@', 2)::bigint) AS last_txid,
  g.generation, split_part(g.start, '@', 2)::bigint AS base,
  pg_snapshot_xmin(pg_current_snapshot()) AS oldest
FROM ledger.feed_generation AS g LEFT JOIN ledger.{table} AS e ON true WHERE g.end_position IS NULL
GROUP BY g.generation, g.start
"""
_BEHIND: Final = """
SELECT name FROM ledger.projection AS p
WHERE NOT ledger.feed_passed(p.generation, p.snapshot, $1, $2, $3) ORDER BY name
"""
_ASIDE: Final = """
SELECT p.name, count(*) AS runs FROM ledger.projection_aside AS a JOIN ledger.projection AS p
  ON a.relation = format('projection.%s_v%s', p.name, p.version)
WHERE a.run_id >= $1 AND a.run_id < $2 GROUP BY p.name ORDER BY p.name
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a dry run found: the obstacles, and how much would be exported or detached."""

    month: str
    obstacles: tuple[str, ...]
    events: int


async def plan(pool: Pool, month: str, *, detach: bool = False) -> Plan:
    """Return what an export, or with `detach` a detach, would meet; change nothing.

    Raises InvalidValue.
    """
    check_month(month)
    try:
        async with pool.acquire() as connection:
            in_the_way, newest = await obstacles(connection, month, detaching=detach)
            return Plan(month, tuple(in_the_way), newest["events"] if newest else 0)
    except (*FAILURES, OSError) as error:
        raise translated(error) from error


async def obstacles(
    connection: Any, month: str, *, detaching: bool
) -> tuple[list[str], Mapping[str, Any] | None]:
    """Return the obstacles, and where the month's newest event is (None without a partition)."""
    if month not in await partition_sizes(connection):
        archive = await archive_of(connection, month)
        if archive is not None and archive.detached:
            return ["it is detached already"], None
        return ["no events of it are in this database"], None
    newest = await connection.fetchrow(_NEWEST.format(table=table_of(month)))
    in_the_way = [
        *await _unfinished(connection, month, newest),
        *await _held(connection, month),
        *await _unread(connection, month, newest),
    ]
    if detaching:
        in_the_way += await _unexported(connection, month, newest)
    return in_the_way, newest


async def _unfinished(connection: Any, month: str, newest: Mapping[str, Any]) -> list[str]:
    first, beyond = bounds(month)
    unfinished = []
    if await connection.fetchval("SELECT ledger.now()") < start_of(month_of(beyond)):
        unfinished.append("it is not over")
    elif newest["events"] == 0:
        unfinished.append("it has no events")
    if count := await connection.fetchval(_OPEN, first, beyond):
        unfinished.append(f"{count:,} of its runs have not ended (`runfold runs` lists them)")
    return unfinished


async def _held(connection: Any, month: str) -> list[str]:
    return [
        f"{row['actor']} holds"
        + (f" run {row['run_id']} of {row['project_id']}" if row["run_id"] else " it")
        + f": {row['reason']}"
        for row in await holds(connection, month)
    ]


async def _unread(connection: Any, month: str, newest: Mapping[str, Any]) -> list[str]:
    """Return the projections that have not passed the month, or have set aside runs of it."""
    place = (newest["generation"], newest["last_position"], newest["last_txid"])
    return [
        *(
            f"projection {row['name']} has not passed it "
            f"(`runfold projections run {row['name']} --once`)"
            for row in await connection.fetch(_BEHIND, *place)
        ),
        *(
            f"projection {row['name']} has set aside {row['runs']:,} of its runs "
            f"(`runfold projections status {row['name']}`)"
            for row in await connection.fetch(_ASIDE, *bounds(month))
        ),
    ]


async def _unexported(connection: Any, month: str, newest: Mapping[str, Any]) -> list[str]:
    archive = await archive_of(connection, month)
    if archive is None:
        return [f"it is not exported (`runfold archive export {month}`)"]
    if (archive.events, archive.last_position) != (newest["events"], newest["last_position"]):
        return [
            f"events came since it was exported: export it again (`runfold archive export {month}`)"
        ]
    await asyncio.to_thread(archive.check_digest)
    return []
