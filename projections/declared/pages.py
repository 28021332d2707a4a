"""Folds pages of the feed into a projection's table, and sets aside runs that cannot be folded.

A page that fails is halved until the event that cannot be folded stands alone. Its run is *set
aside* then (`ledger.projection_aside`): that event and later ones of the run are left out of the
table, noted, and folded when somebody has it tried again. All other runs go on. With `RUNS_ASIDE`
such runs a project is set aside as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from runfold.ledger import log, names
from runfold.ledger.reading import feed
from runfold.ledger.reading.feed import Checkpoint, Filter, page_arguments
from runfold.projections.bad_data import is_bad_data
from runfold.projections.declared.projection import Projection
from runfold.projections.declared.sources import texts
from runfold.projections.declared.statements import RUNS_ASIDE, taken_sql
from runfold.projections.rebuild import FOLDING

ERROR_LIMIT: Final = 2_000

SETTINGS: Final = f"SET LOCAL enable_seqscan = off; {FOLDING}"
"""For a transaction that folds a page: plans for pages."""
_FIRST: Final = (
    "SELECT event.project_id, event.run_id, event.version, event.position"
    f" FROM {feed.PAGE} AS event"
)
_SET_ASIDE: Final = """
INSERT INTO ledger.projection_aside AS known
  (relation, name, project_id, run_id, first_position, last_position, event_version, error)
VALUES ($1, $2, $3, $4, $5, $5, $6, $7)
ON CONFLICT (relation, project_id, run_id) DO NOTHING RETURNING known.run_id
"""
_NEXT_RETRY: Final = """
SELECT project_id, run_id, first_position, last_position, set_aside_at
FROM ledger.projection_aside
WHERE relation = $1 AND retry_at IS NOT NULL ORDER BY retry_at, run_id LIMIT 1 FOR UPDATE
"""
_FORGET_ASIDE: Final = "SELECT ledger.forget_aside($1, $2, $3)"
_STILL_ASIDE: Final = """
INSERT INTO ledger.projection_aside
  (relation, name, project_id, run_id, first_position, last_position, events, event_version, error,
    set_aside_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
"""
_RETRY_UNTRIED: Final = """
UPDATE ledger.projection_aside AS aside SET retry_at = clock_timestamp()
WHERE aside.relation = $1 AND aside.project_id = $2 AND aside.error IS NULL
  AND aside.retry_at IS NULL
  AND (SELECT count(*) FROM ledger.projection_aside AS failed
       WHERE failed.relation = $1 AND failed.project_id = $2 AND failed.error IS NOT NULL) < $3
"""


@dataclass(frozen=True, slots=True)
class FeedPage:
    """What was taken: how many events, and the checkpoint after them."""

    events: int
    checkpoint: Checkpoint


async def take_page(
    connection: Any,
    projection: Projection,
    towards: Checkpoint,
    limit: int,
    table: str | None = None,
) -> FeedPage:
    """Fold the next page into the projection's table, or one like it, in an open transaction.

    The first run that cannot be folded is set aside, and the rest of the page is for the next call.
    """
    table = table or projection.table
    size = limit
    while True:
        try:
            async with connection.transaction():
                return await _merge(connection, projection, towards, size, table)
        except asyncpg.PostgresError as error:
            if not is_bad_data(error):
                raise
            if size == 1:
                await _set_aside(connection, projection, towards, table, error)
            size = max(size // 2, 1)


async def retry_next(connection: Any, projection: Projection) -> int | None:
    """Fold the next run that is to be retried; return its events, or None if there is none.

    The first of its events that cannot be folded, and later ones, are left out as before.
    """
    run = await connection.fetchrow(_NEXT_RETRY, projection.table)
    if run is None:
        return None
    key = (projection.table, run["project_id"], run["run_id"])
    types = "" if projection.types is None else f" AND event.type IN ({texts(projection.types)})"
    page = (
        "SELECT event.* FROM ledger.event AS event\n"
        "WHERE event.project_id = $1 AND event.run_id = $2\n"
        f"  AND event.position BETWEEN $3 AND $4{types}"
    )
    places = f"SELECT page.position, page.version FROM ({page}) AS page ORDER BY page.position"
    bounds = (run["first_position"], run["last_position"])
    events = await connection.fetch(places, *key[1:], *bounds)
    await connection.execute(SETTINGS)
    await connection.execute(_FORGET_ASIDE, *key)
    statement = taken_sql(projection, page, projection.table)
    done, size = 0, len(events)
    while done < len(events):
        part = events[done : done + size]
        try:
            async with connection.transaction():
                bounds = (part[0]["position"], part[-1]["position"])
                await connection.fetchrow(statement, *key[1:], *bounds)
        except asyncpg.PostgresError as error:
            if not is_bad_data(error):
                raise
            if size == 1:
                await _leave_aside(connection, projection, run, events[done:], error)
                return done
            size = max(size // 2, 1)
        else:
            done += len(part)
    # Where fewer runs fail than set a project aside, those that were set aside with it are tried.
    await connection.execute(_RETRY_UNTRIED, *key[:2], RUNS_ASIDE)
    return done


async def _leave_aside(
    connection: Any, projection: Projection, run: Any, events: Sequence[Any], error: Exception
) -> None:
    """Set a run aside again, from the first of these events on, which cannot be folded."""
    first = events[0]
    which_run = (projection.table, projection.name, run["project_id"], run["run_id"])
    positions = (first["position"], run["last_position"])
    facts = (len(events), first["version"], reason_of(error), run["set_aside_at"])
    await connection.execute(_STILL_ASIDE, *which_run, *positions, *facts)


def filter_of(projection: Projection) -> Filter:
    """Return which events the projection reads."""
    types = None if projection.types is None else sorted(projection.types)
    return Filter(
        types=types,
        without=["lease.heartbeat"] if projection.apply is not None and types is None else None,
    )


def reason_of(error: BaseException) -> str:
    """Return an error as text that the database takes."""
    text = f"{type(error).__name__}: {error}".replace("\x00", "")
    return text.encode(errors="replace").decode()[:ERROR_LIMIT]


async def first_event(connection: Any, projection: Projection, towards: Checkpoint) -> Any:
    """Return project, run, version and position of the next event, None if there is none."""
    return await connection.fetchrow(_FIRST, *page_arguments(towards, 1, filter_of(projection)))


async def _merge(
    connection: Any, projection: Projection, towards: Checkpoint, limit: int, table: str
) -> FeedPage:
    await connection.execute(SETTINGS)
    statement = taken_sql(projection, f"SELECT event.* FROM {feed.PAGE} AS event", table)
    row = await connection.fetchrow(
        statement, *page_arguments(towards, limit, filter_of(projection))
    )
    after = towards.moved(row["position"]) if row["events"] >= limit else towards.arrived()
    return FeedPage(row["events"], after)


async def _set_aside(
    connection: Any, projection: Projection, towards: Checkpoint, table: str, error: Exception
) -> None:
    event = await first_event(connection, projection, towards)
    inserted = await connection.fetchrow(
        _SET_ASIDE,
        table,
        projection.name,
        event["project_id"],
        event["run_id"],
        event["position"],
        event["version"],
        reason_of(error),
    )
    if inserted is None:  # its run is set aside already: the event is not what fails
        raise error
    log.logger(project_id=event["project_id"], run_id=str(event["run_id"])).warning(
        names.RUN_SET_ASIDE,
        projection=projection.name,
        version=event["version"],
        reason=reason_of(error),
    )
