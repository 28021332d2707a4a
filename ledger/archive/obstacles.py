"""What stands in the way of an export or a detach: unfinished runs, holds, readers behind.

A month is looked through page by page, each in a snapshot of its own: a count of all of it at once
would hold back every vacuum for minutes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from runfold.ledger.archive.holds import holds
from runfold.ledger.archive.record import archive_of
from runfold.ledger.archive.status import partition_sizes
from runfold.ledger.archive.watched import Watched
from runfold.ledger.months import FIRST_RUN, bounds, check_month, month_of, start_of, table_of
from runfold.ledger.postgres.connections import FAILURES, Pool
from runfold.ledger.postgres.errors import translated

_PAGE: Final = 20_000
_PROJECTS: Final = "SELECT project_id FROM ledger.project ORDER BY project_id"
_OPEN: Final = """
WITH page AS MATERIALIZED (
  SELECT run.run_id, run.completed_at FROM ledger.run_state AS run
  WHERE run.project_id = $1 AND run.run_id > $2 AND run.run_id < $3 ORDER BY run.run_id LIMIT $4
)
SELECT count(*) FILTER (WHERE page.completed_at IS NULL) OVER () AS open, page.run_id
FROM page ORDER BY page.run_id DESC LIMIT 1
"""
_GENERATION: Final = """
SELECT feed.generation, split_part(feed.start, '@', 2)::bigint AS base,
  pg_current_snapshot()::text AS seen
FROM ledger.feed_generation AS feed WHERE feed.end_position IS NULL
"""
_EVENTS: Final = """
WITH page AS MATERIALIZED (
  SELECT event.project_id, event.run_id, event.version, event.position, event.txid
  FROM ledger.{table} AS event
  WHERE (event.project_id, event.run_id, event.version) > ($1, $2, $3)
  ORDER BY event.project_id, event.run_id, event.version LIMIT $4
)
SELECT count(*) OVER () AS events, max(page.position) OVER () AS last_position,
  max(page.txid) FILTER (WHERE page.position > $5) OVER () AS last_txid,
  page.project_id, page.run_id, page.version
FROM page ORDER BY page.project_id DESC, page.run_id DESC, page.version DESC LIMIT 1
"""
_BEHIND: Final = """
SELECT name FROM ledger.projection AS projection
WHERE NOT ledger.feed_passed(projection.generation, projection.snapshot, $1, $2, $3) ORDER BY name
"""
_ASIDE: Final = """
SELECT projection.name, count(*) AS runs FROM ledger.projection_aside AS aside
JOIN ledger.projection AS projection
  ON aside.relation = format('projection.%s_v%s', projection.name, projection.version)
WHERE aside.run_id >= $1 AND aside.run_id < $2 GROUP BY projection.name ORDER BY projection.name
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
            return ["the month is detached already"], None
        return ["no events of the month are in this database"], None
    newest = await _newest(connection, month)
    in_the_way = [
        *await _unfinished(connection, month, newest),
        *await held(connection, month),
        *await _unread(connection, month, newest),
    ]
    if detaching:
        in_the_way += await _unexported(connection, month, newest)
    return in_the_way, newest


async def _newest(connection: Any, month: str) -> dict[str, Any]:
    """Return how many events a month has, and the last of them.

    `seen` is a snapshot from before the first page; it shows nothing that a page could not see.
    """
    newest = dict(await connection.fetchrow(_GENERATION))
    newest |= {"events": 0, "last_position": None, "last_txid": None}
    statement, after = _EVENTS.format(table=table_of(month)), ("", FIRST_RUN, 0)
    while page := await connection.fetchrow(statement, *after, _PAGE, newest["base"]):
        newest["events"] += page["events"]
        for name in ("last_position", "last_txid"):
            values = [value for value in (newest[name], page[name]) if value is not None]
            newest[name] = max(values, default=None)
        after = (page["project_id"], page["run_id"], page["version"])
    return newest


async def _open(connection: Any, month: str) -> int:
    """Return how many runs of a month have not ended."""
    first, beyond = bounds(month)
    count = 0
    for row in await connection.fetch(_PROJECTS):
        after = UUID(int=first.int - 1)
        while page := await connection.fetchrow(_OPEN, row["project_id"], after, beyond, _PAGE):
            count += page["open"]
            after = page["run_id"]
    return count


async def _unfinished(connection: Any, month: str, newest: Mapping[str, Any]) -> list[str]:
    _, beyond = bounds(month)
    unfinished = []
    if await connection.fetchval("SELECT ledger.now()") < start_of(month_of(beyond)):
        unfinished.append("the month is not over")
    elif newest["events"] == 0:
        unfinished.append("the month has no events")
    if count := await _open(connection, month):
        unfinished.append(f"runs that have not ended: {count:,} (`runfold runs`)")
    return unfinished


async def held(connection: Any, month: str) -> list[str]:
    """Return who holds the month, or a run of it, and why."""
    return [
        f"{row['actor']} holds"
        + (f" run {row['run_id']} of {row['project_id']}" if row["run_id"] else " the month")
        + f": {row['reason']}"
        for row in await holds(connection, month)
    ]


async def _unread(connection: Any, month: str, newest: Mapping[str, Any]) -> list[str]:
    """Return the projections that have not passed the month, or have set aside runs of it."""
    place = (newest["generation"], newest["last_position"], newest["last_txid"])
    return [
        *(
            f"projection {row['name']} has not read all of the month "
            f"(`runfold projections run {row['name']} --once`)"
            for row in await connection.fetch(_BEHIND, *place)
        ),
        *(
            f"runs of the month that projection {row['name']} has set aside: {row['runs']:,} "
            f"(`runfold projections status {row['name']}`)"
            for row in await connection.fetch(_ASIDE, *bounds(month))
        ),
    ]


async def _unexported(connection: Any, month: str, newest: Mapping[str, Any]) -> list[str]:
    archive = await archive_of(connection, month)
    if archive is None:
        return [f"the month is not exported (`runfold archive export {month}`)"]
    if (archive.events, archive.last_position) != (newest["events"], newest["last_position"]):
        return ["events were appended since the export: export again"]
    watched = Watched(archive.path)
    await watched.call(archive.check_digest, watched.step)
    return []
