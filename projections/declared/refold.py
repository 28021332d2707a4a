"""Rebuild of a declared projection: built beside the live table, compared, put in its place.

    fill a shadow by ranges of runs, as of one moment -> take what came since -> hold the projection
    -> the last page -> compare -> rename -> go on

Why a table here and rows for `run_state`: docs/decisions/0017.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import asyncpg

from runfold.ledger.archive.lifecycle import attached
from runfold.ledger.errors import BeforeFirstEvent, CheckpointUnknown, FeedArchived, InvalidValue
from runfold.ledger.postgres.connections import FAILURES, Pool, fetch
from runfold.ledger.postgres.errors import translated
from runfold.ledger.reading import feed
from runfold.ledger.reading.feed import Checkpoint
from runfold.ledger.reading.past import check_project_instant
from runfold.projections.declared.catch_up import BATCH, checkpoint_of
from runfold.projections.declared.installing import check_table, install, publish
from runfold.projections.declared.pages import take_page
from runfold.projections.declared.projection import Projection
from runfold.projections.declared.sources import text, texts
from runfold.projections.declared.statements import required as not_null
from runfold.projections.declared.statements import taken_sql
from runfold.projections.declared.status import require
from runfold.projections.errors import LockTimeout, OtherVersion, Redeclared, TableChanged
from runfold.projections.rebuild import EVENTS_A_RANGE, Rebuild
from runfold.projections.rebuild_plan import BadRun, OnProgress, RebuildPlan, RebuildProgress
from runfold.projections.state.replay import LOCK_TIMEOUT, TRIES

SCHEMA: Final = "projection"
_SHADOW: Final = "@shadow@"
_VISIBLE: Final = """(e.position <= (
      SELECT split_part(g.start, '@', 2)::bigint FROM ledger.feed_generation AS g
      WHERE g.generation = split_part($4, '/', 1)::int)
    OR pg_visible_in_snapshot(e.txid, split_part(split_part($4, '/', 2), '@', 1)::pg_snapshot))"""
_TRY_AGAIN: Final = "DELETE FROM ledger.projection_aside WHERE relation = $1 AND first_position = 0"
_SET_ASIDE: Final = f"""
INSERT INTO ledger.projection_aside
  (relation, name, project_id, run_id, first_position, last_position, events, error)
SELECT $2, $3, e.project_id, e.run_id, 0, max(e.position), count(*), r.error
FROM ledger.rebuild_range AS r JOIN ledger.event AS e ON e.run_id = r.first
WHERE r.rebuild_id = $1 AND r.error IS NOT NULL AND {_VISIBLE}
GROUP BY e.project_id, e.run_id, r.error ON CONFLICT DO NOTHING
"""
_ASIDE_DIFFERS: Final = """
SELECT EXISTS (
  SELECT FROM (SELECT project_id, run_id FROM ledger.projection_aside WHERE relation = $1) AS a
  FULL JOIN (SELECT project_id, run_id FROM ledger.projection_aside WHERE relation = $2) AS b
    USING (project_id, run_id)
  WHERE a IS NULL OR b IS NULL)
"""
_EXCHANGE: Final = "SELECT ledger.exchange_projection_table($1, $2, $3)"
_DROP_REPLACED: Final = "SELECT * FROM ledger.drop_projection_tables($1) AS name"
_DROP: Final = "SELECT * FROM ledger.drop_projection_tables($1, p_all => true) AS name"
_FOUND: Final = "SELECT * FROM ledger.projection WHERE name = $1"
_MOMENT: Final = "UPDATE ledger.rebuild SET moment = $2 WHERE rebuild_id = $1"
_FINISHED: Final = "UPDATE ledger.rebuild SET finished_at = clock_timestamp() WHERE rebuild_id = $1"
_REPLACED: Final = """
UPDATE ledger.projection SET version = $2, digest = $3, generation = $4, snapshot = $5,
  target = NULL, position = 0, moved_at = clock_timestamp(), failed_at = NULL, error = NULL,
  error_project_id = NULL, error_run_id = NULL, error_version = NULL, error_position = NULL
WHERE name = $1
"""


@dataclass(frozen=True, slots=True)
class Refolded:
    """What a rebuild did: its counts, runs that cannot be folded, rows that were wrong."""

    rebuild_id: int
    resumed: bool
    progress: RebuildProgress
    bad: tuple[BadRun, ...]
    wrong: int | None
    """None when there was nothing to compare with, such as another version or an instant."""
    kept_in: str | None
    """The table as it was; for a state as of an instant, the table that was built."""


def plan(projection: Projection, moment: Checkpoint, until: datetime | None = None) -> RebuildPlan:
    """Return how the projection's table is filled with the events that were visible at a moment."""
    types = "" if projection.types is None else f" AND e.type IN ({texts(projection.types)})"
    page = (
        "SELECT e.* FROM ledger.event AS e WHERE e.run_id BETWEEN $1 AND $2\n"
        f"  AND ($3::timestamptz IS NULL OR e.recorded_at <= $3) AND {_VISIBLE}{types}"
    )
    return RebuildPlan(
        projection.name,
        _create_sql(projection),
        _template(taken_sql(projection, page, _SHADOW)),
        (until,),
        until=until,
        moment=str(moment),
        schema=SCHEMA,
    )


def _create_sql(projection: Projection) -> str:
    """Compile the making of the shadow table, which has the projection's columns."""
    types = projection.column_types()
    arrays = ", ".join(
        f"ARRAY[{', '.join(map(text, names))}]::text[]"
        for names in (types, types.values(), sorted(not_null(projection)), projection.key)
    )
    return f"SELECT ledger.make_projection_table(split_part('{{shadow}}', '.', 2), {arrays})"


def _template(sql: str) -> str:
    return sql.replace("{", "{{").replace("}", "}}").replace(_SHADOW, "{shadow}")


async def refold(
    pool: Pool,
    projection: Projection,
    *,
    connections: int = 2,
    strict: bool = False,
    on_progress: OnProgress | None = None,
    events_a_range: int = EVENTS_A_RANGE,
) -> Refolded:
    """Fold every event again beside the live table, and put the result in its place.

    Writers and readers go on meanwhile.

    Also how a newer version takes the place of an older one. A killed rebuild is resumed. Runs that
    cannot be folded are set aside, as they are by `CatchUp`. The old table is kept until
    `drop_replaced`.

    Raises InvalidValue for a function, OtherVersion, Redeclared, RebuildFailed, RebuildRunning,
    LockTimeout.
    """
    _check_folded(projection)
    await _check_installed(pool, projection)
    async with (
        attached(pool),
        Rebuild.begin(
            pool, plan(projection, await feed.now(pool)), events_a_range=events_a_range
        ) as rebuild,
    ):
        await fetch(pool, _TRY_AGAIN, rebuild.shadow)
        bad = tuple(await rebuild.fill(connections, strict=strict, on_progress=on_progress))
        progress = await rebuild.progress()
        if bad:
            names = (rebuild.shadow, projection.name)
            await fetch(pool, _SET_ASIDE, rebuild.rebuild_id, *names, rebuild.moment)
        checkpoint = await _catch_up(pool, rebuild, projection)
        wrong, kept_in = await _replace(pool, rebuild, projection, checkpoint)
    return Refolded(rebuild.rebuild_id, rebuild.resumed, progress, bad, wrong, kept_in)


async def refold_until(
    pool: Pool,
    projection: Projection,
    until: datetime,
    *,
    connections: int = 2,
    strict: bool = False,
    on_progress: OnProgress | None = None,
    events_a_range: int = EVENTS_A_RANGE,
) -> Refolded:
    """Build the table as of an instant beside the live one.

    Raises as `refold` does, FutureInstant or BeforeFirstEvent.
    """
    _check_folded(projection)
    await _check_instant(pool, until)
    async with (
        attached(pool),
        Rebuild.begin(
            pool, plan(projection, await feed.now(pool), until), events_a_range=events_a_range
        ) as rebuild,
    ):
        bad = tuple(await rebuild.fill(connections, strict=strict, on_progress=on_progress))
        progress = await rebuild.progress()
        await rebuild.finish(keep=True)
    return Refolded(rebuild.rebuild_id, rebuild.resumed, progress, bad, None, rebuild.shadow)


def _check_folded(projection: Projection) -> None:
    if projection.apply is not None:
        raise InvalidValue(
            "projection",
            projection.name,
            "applies a function, whose effects cannot be rebuilt here",
        )


async def _check_instant(pool: Pool, until: datetime) -> None:
    early: BeforeFirstEvent | None = None
    for row in await fetch(pool, "SELECT project_id FROM ledger.project ORDER BY project_id"):
        try:
            await check_project_instant(pool, row["project_id"], until)
        except BeforeFirstEvent as error:
            early = error
        else:
            return
    if early is not None:
        raise early


async def _check_installed(pool: Pool, projection: Projection) -> None:
    rows = await fetch(pool, _FOUND, projection.name)
    if not rows:
        await install(pool, projection)
    elif rows[0]["version"] > projection.version:
        raise OtherVersion(projection.name, projection.version, rows[0]["version"])
    elif rows[0]["version"] == projection.version and rows[0]["digest"] != projection.digest:
        raise Redeclared(projection.name, projection.version)


async def _catch_up(pool: Pool, rebuild: Rebuild, projection: Projection) -> Checkpoint:
    """Take to the shadow what came since its moment, a page in each transaction."""
    assert rebuild.moment is not None
    checkpoint = Checkpoint.parse(rebuild.moment)
    while True:
        try:
            async with pool.acquire() as connection, connection.transaction():
                further = await _further(connection, rebuild, projection, checkpoint)
        except (*FAILURES, OSError) as error:
            raise translated(error) from error
        if further is None:
            return checkpoint
        checkpoint = further


async def _further(
    connection: Any, rebuild: Rebuild, projection: Projection, checkpoint: Checkpoint
) -> Checkpoint | None:
    towards = await feed.towards(connection, checkpoint, BATCH)
    if towards is None:
        return None
    page = await take_page(connection, projection, towards, BATCH, rebuild.shadow)
    await connection.execute(_MOMENT, rebuild.rebuild_id, str(page.checkpoint))
    return page.checkpoint


async def _replace(
    pool: Pool, rebuild: Rebuild, projection: Projection, checkpoint: Checkpoint
) -> tuple[int | None, str]:
    """Put the shadow in the place of the live table; the checkpoint's lock keeps others out.

    Locks: the row of `ledger.projection`, then both tables, the latter two seconds at most, in five
    tries.
    """
    for attempt in range(1, TRIES + 1):
        try:
            async with pool.acquire() as connection, connection.transaction():
                return await _exchange(connection, rebuild, projection, checkpoint)
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            await asyncio.sleep(0.1 * 2**attempt)
        except (*FAILURES, OSError) as error:
            raise translated(error) from error
    raise LockTimeout(TRIES, LOCK_TIMEOUT, f"table {projection.table}")


async def _exchange(
    connection: Any, rebuild: Rebuild, projection: Projection, checkpoint: Checkpoint
) -> tuple[int | None, str]:
    await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
    row = await connection.fetchrow(f"{_FOUND} FOR UPDATE", projection.name)
    here = await feed.now(connection)
    await _bring(connection, projection, checkpoint, here, rebuild.shadow)
    wrong = await _compare(connection, projection, row, here, rebuild.shadow)
    identity = (projection.name, projection.version)
    kept_in = await connection.fetchval(_EXCHANGE, *identity, rebuild.rebuild_id)
    await publish(connection, projection)
    place = (here.generation, here.moment)
    await connection.execute(_REPLACED, *identity, projection.digest, *place)
    await connection.execute(_FINISHED, rebuild.rebuild_id)
    return wrong, kept_in


async def _bring(
    connection: Any, projection: Projection, checkpoint: Checkpoint, here: Checkpoint, table: str
) -> None:
    """Take to a table everything from its checkpoint up to this moment."""
    while checkpoint.target is not None or checkpoint.generation != here.generation:
        towards = await feed.towards(connection, checkpoint, BATCH)
        assert towards is not None  # it is on the way, or a generation ended
        checkpoint = (await take_page(connection, projection, towards, BATCH, table)).checkpoint
    checkpoint = replace(checkpoint, target=here.moment, position=0)
    while checkpoint.target is not None:
        checkpoint = (await take_page(connection, projection, checkpoint, BATCH, table)).checkpoint


async def _compare(
    connection: Any, projection: Projection, row: Any, here: Checkpoint, shadow: str
) -> int | None:
    """Count the rows that the live table has wrong, once it is as far as the shadow."""
    if row["version"] != projection.version:
        return None
    try:
        await check_table(connection, projection)
    except TableChanged:
        return None
    live, key = projection.table, ", ".join(f'"{name}"' for name in projection.key)
    try:
        async with connection.transaction():
            await _bring(connection, projection, checkpoint_of(row), here, live)
    except (FeedArchived, CheckpointUnknown):  # the live table cannot come here any more
        return None
    except asyncpg.PostgresError as error:
        if isinstance(translated(error), FeedArchived | CheckpointUnknown):
            return None
        raise
    if await connection.fetchval(_ASIDE_DIFFERS, live, shadow):
        return None
    return int(
        await connection.fetchval(
            f"SELECT count(*) FROM {live} AS stored FULL JOIN {shadow} AS rebuilt USING ({key}) "
            "WHERE stored::record IS DISTINCT FROM rebuilt::record"
        )
    )


async def drop_replaced(pool: Pool, name: str) -> list[str]:
    """Drop the tables that finished rebuilds of the projection left behind; return their names."""
    return [row["name"] for row in await fetch(pool, _DROP_REPLACED, name)]


async def drop(pool: Pool, name: str) -> list[str]:
    """Drop the projection: its view, tables and checkpoint; return the tables' names.

    Raises ProjectionNotFound for one that is not installed.
    """
    await require(pool, name)
    return [row["name"] for row in await fetch(pool, _DROP, name)]
