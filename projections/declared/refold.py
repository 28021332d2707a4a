"""Rebuild of a declared projection: built beside the live table, compared, put in its place.

    fill a shadow by ranges of runs, as of one moment -> take what came since -> hold the projection
    -> the last page -> compare -> rename -> go on

Why a table here and rows for `run_state`: docs/decisions/0017.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from runfold.ledger.access import EVERYWHERE
from runfold.ledger.archive.attach import attached
from runfold.ledger.errors import BeforeFirstEvent, InvalidValue
from runfold.ledger.postgres.connections import Pool, fetch
from runfold.ledger.reading import feed
from runfold.ledger.reading.feed import Checkpoint
from runfold.ledger.reading.past import check_project_instant
from runfold.ledger.reading.permitted import permitted
from runfold.ledger.settings import Settings
from runfold.ledger.validation import order_reason
from runfold.projections.declared.exchange import INSTALLED, NOTED, Order, catch_up, replace_table
from runfold.projections.declared.installing import install
from runfold.projections.declared.projection import Projection
from runfold.projections.declared.sources import text, texts
from runfold.projections.declared.statements import required as not_null
from runfold.projections.declared.statements import taken_sql
from runfold.projections.errors import OtherVersion, Redeclared
from runfold.projections.rebuild import EVENTS_A_RANGE, Rebuild
from runfold.projections.rebuild_plan import BadRun, OnProgress, RebuildPlan, RebuildProgress

SCHEMA: Final = "projection"
NOBODY: Final = Order()
_SHADOW: Final = "@shadow@"
# Of a later generation, an id says nothing of the moment.
_VISIBLE: Final = """(event.position <= (
      SELECT split_part(feed.start, '@', 2)::bigint FROM ledger.feed_generation AS feed
      WHERE feed.generation = split_part($4, '/', 1)::int)
    OR event.position <= (
      SELECT coalesce(feed.end_position, 9223372036854775807) FROM ledger.feed_generation AS feed
      WHERE feed.generation = split_part($4, '/', 1)::int)
    AND pg_visible_in_snapshot(event.txid,
      split_part(split_part($4, '/', 2), '@', 1)::pg_snapshot))"""
_TRY_AGAIN: Final = "SELECT ledger.forget_aside($1, NULL, NULL)"
_SET_ASIDE: Final = f"""
INSERT INTO ledger.projection_aside
  (relation, name, project_id, run_id, first_position, last_position, events, error)
SELECT $2, $3, event.project_id, event.run_id, 0, max(event.position), count(*), range.error
FROM ledger.rebuild_range AS range JOIN ledger.event AS event ON event.run_id = range.first
WHERE range.rebuild_id = $1 AND range.error IS NOT NULL AND {_VISIBLE}
GROUP BY event.project_id, event.run_id, range.error ON CONFLICT DO NOTHING
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


async def note_order(pool: Pool, projection: Projection, order: Order) -> None:
    """Record that somebody has a projection rebuilt, and why. Raises InvalidValue, AccessDenied."""
    if not (order.reason or "").strip():
        raise InvalidValue("reason", order.reason, "is needed: it is kept in the control history")
    kept = _redacted(order)
    facts = (projection.version, None, None, kept.actor, kept.reason)
    await fetch(pool, NOTED, projection.name, "begun", *facts)


def _redacted(order: Order) -> Order:
    """Return an order as the control history keeps it: without secrets. Raises InvalidValue."""
    return Order(order.actor, order_reason(order.reason, Settings.load().redaction()))


def plan(projection: Projection, moment: Checkpoint, until: datetime | None = None) -> RebuildPlan:
    """Return how the projection's table is filled with the events that were visible at a moment."""
    types = "" if projection.types is None else f" AND event.type IN ({texts(projection.types)})"
    page = (
        "SELECT event.* FROM ledger.event AS event WHERE event.run_id BETWEEN $1 AND $2\n"
        f"  AND ($3::timestamptz IS NULL OR event.recorded_at <= $3) AND {_VISIBLE}{types}"
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
    order: Order = NOBODY,
) -> Refolded:
    """Fold every event again beside the live table, and put the result in its place.

    Writers and readers go on meanwhile. A killed rebuild is resumed. Runs that cannot be folded are
    set aside, as they are by `CatchUp`. A newer version takes the place of an older one in the same
    way. The exchange of the tables is an event of the control history, with who gave the order and
    why. The old table is kept until `drop_replaced`.

    Raises InvalidValue for a function, OtherVersion, Redeclared, RebuildFailed, RebuildRunning,
    LockTimeout.
    """
    _check_folded(projection)
    order = _redacted(order)  # before the work, not at its end
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
            await _set_aside(pool, rebuild)
        checkpoint = await catch_up(pool, rebuild, projection)
        wrong, kept_in = await replace_table(pool, rebuild, projection, checkpoint, order)
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


async def _set_aside(pool: Pool, rebuild: Rebuild) -> None:
    """Set aside, for the shadow, the runs whose fold failed. Raises AccessDenied."""
    facts = (rebuild.rebuild_id, rebuild.shadow, rebuild.plan.projection, rebuild.moment)
    async with (
        pool.acquire() as connection,
        connection.transaction(),
        permitted(connection, EVERYWHERE, "read"),
    ):
        await connection.execute(_SET_ASIDE, *facts)


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
    rows = await fetch(pool, INSTALLED, projection.name)
    if not rows:
        await install(pool, projection)
    elif rows[0]["version"] > projection.version:
        raise OtherVersion(projection.name, projection.version, rows[0]["version"])
    elif rows[0]["version"] == projection.version and rows[0]["digest"] != projection.digest:
        raise Redeclared(projection.name, projection.version)
