"""Catching up: a projection takes what is new, page by page.

    lock the checkpoint -> read a page of the feed -> fold and merge it, or apply it -> move the
    checkpoint -> commit

The checkpoint moves in the transaction that writes the rows. A run that cannot be folded is set
aside, and the rest goes on (`pages.py`). A function that raises stops its projection before the
event, and only that projection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from runfold.ledger.access import EVERYWHERE
from runfold.ledger.errors import UnknownEvent
from runfold.ledger.events import CATALOGUE, Event, OpaqueEvent
from runfold.ledger.lifecycle import RESERVED
from runfold.ledger.postgres.connections import FAILURES, Pool
from runfold.ledger.postgres.errors import translated
from runfold.ledger.reading import feed
from runfold.ledger.reading.feed import Checkpoint
from runfold.ledger.reading.permitted import check_may, permitted
from runfold.ledger.validation import check_int
from runfold.projections.declared.pages import (
    FeedPage,
    filter_of,
    first_event,
    reason_of,
    retry_next,
    take_page,
)
from runfold.projections.declared.projection import IN_FORCE, Projection
from runfold.projections.errors import (
    OtherVersion,
    ProjectionFailed,
    ProjectionNotFound,
    ProjectionPaused,
    Redeclared,
)

BATCH: Final = 5_000
MAX_BATCH: Final = 100_000

_USERS_PATH: Final = """SET LOCAL search_path = "$user", public"""
"""A user's function expects the user's tables; our connections search pg_catalog only."""
_OWN_PATH: Final = "SET LOCAL search_path = pg_catalog, pg_temp"
_LOOK: Final = f"""
SELECT projection.*, EXISTS (
  SELECT FROM ledger.projection_aside AS aside
  WHERE aside.relation = {IN_FORCE}
    AND aside.retry_at IS NOT NULL
) AS retrying
FROM ledger.projection AS projection WHERE projection.name = $1
"""
_LOCK: Final = f"{_LOOK} FOR UPDATE OF projection"
_SKIPPED: Final = "SELECT position FROM ledger.projection_skip WHERE name = $1 AND version = $2"
_MOVE: Final = """
UPDATE ledger.projection SET generation = $2, snapshot = $3, target = $4, position = $5,
  events = events + $6, moved_at = clock_timestamp()
WHERE name = $1
"""
_FAIL: Final = """
UPDATE ledger.projection SET generation = $2, snapshot = $3, target = $4, position = $5,
  failed_at = clock_timestamp(), error = $6, error_project_id = $7, error_run_id = $8,
  error_version = $9, error_position = $10
WHERE name = $1
"""


class CatchUp:
    """Brings one installed projection up to date.

    Any number of processes may do so at once: they take turns, a page each.
    """

    def __init__(self, pool: Pool, projection: Projection, *, batch: int = BATCH) -> None:
        """Start nothing yet; `batch` is the most events of a transaction. Raises InvalidValue."""
        self.pool, self.projection = pool, projection
        self.batch = check_int("batch", batch, least=1, most=MAX_BATCH)
        self._limit = self.batch
        self._tried = Checkpoint()
        self._idle = False

    async def to_the_end(self) -> int:
        """Take pages until nothing is new; return how many events they had. Raises as `step`."""
        events = 0
        while (taken := await self.step()) is not None:
            events += taken
        return events

    async def step(self) -> int | None:
        """Take one page and commit it; return how many events it had, or None when nothing is new.

        Raises ProjectionFailed where a function raised, ProjectionPaused, ProjectionNotFound,
        OtherVersion, Redeclared, AccessDenied, CheckpointUnknown, FeedMoved, FeedOnStandby or
        DatabaseUnavailable.
        """
        try:
            async with self.pool.acquire() as connection:
                if self._idle and not await self._has_news(connection):
                    return None
                while True:
                    try:
                        taken = await self._step(connection, self._limit)
                    except _FunctionFailed:
                        if self._limit > 1:
                            self._limit //= 2
                            continue
                        await self._stop(connection)
                        taken = 0
                    self._limit = min(self.batch, self._limit * 2)
                    self._idle = taken is None
                    return taken
        except (*FAILURES, OSError) as error:
            raise translated(error) from error

    async def _has_news(self, connection: Any) -> bool:
        """Whether there is something to do; asked without a lock, which costs a transaction id."""
        row = await connection.fetchrow(_LOOK, self.projection.name)
        if row is None:
            await check_may(connection, EVERYWHERE, "read")
        checkpoint = checked(self.projection, row)
        return row["retrying"] or await feed.towards(connection, checkpoint, 1) is not None

    async def _step(self, connection: Any, limit: int) -> int | None:
        async with connection.transaction(), permitted(connection, EVERYWHERE, "read"):
            row = await connection.fetchrow(_LOCK, self.projection.name)
            self._tried = checked(self.projection, row)
            if row["retrying"]:
                retried = await retry_next(connection, self.projection)
                if retried is not None:
                    return retried
            towards = await feed.towards(connection, self._tried, limit)
            if towards is None:
                return None
            page = await self._take(connection, towards, limit)
            after = page.checkpoint
            place = (after.generation, after.moment, after.target, after.position)
            await connection.execute(_MOVE, self.projection.name, *place, page.events)
            return page.events

    async def _take(self, connection: Any, towards: Checkpoint, limit: int) -> FeedPage:
        if self.projection.apply is None:
            return await take_page(connection, self.projection, towards, limit)
        events, after = await feed.read(connection, towards, limit, filter_of(self.projection))
        known_as = (self.projection.name, self.projection.version)
        skipped = {row["position"] for row in await connection.fetch(_SKIPPED, *known_as)}
        await self._apply(connection, [event for event in events if event.position not in skipped])
        return FeedPage(len(events), after)

    async def _apply(self, connection: Any, events: Sequence[Event]) -> None:
        """Call the function unless there are no events; any error it raises is its failure."""
        assert self.projection.apply is not None
        if not events:
            return
        try:
            async with connection.transaction():
                for event in events:
                    _check_known(event)
                await connection.execute(_USERS_PATH)
                await self.projection.apply(connection, events)
                await connection.execute(_OWN_PATH)
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            if connection.is_closed() or _is_cancelled(error):
                raise
            raise _FunctionFailed(error) from error

    async def _stop(self, connection: Any) -> None:
        """Stop before the next event if the function still fails on it; raise ProjectionFailed."""
        try:
            await self._step(connection, 1)
        except _FunctionFailed as failure:
            reason = reason_of(failure.error)
        else:
            return
        # In a transaction of its own: the function may have left the other one in any state.
        async with connection.transaction(), permitted(connection, EVERYWHERE, "read"):
            row = await connection.fetchrow(_LOCK, self.projection.name)
            checkpoint = checked(self.projection, row)
            towards = await feed.towards(connection, checkpoint, 1)
            if towards is None or checkpoint != self._tried:  # another process went on meanwhile
                return
            event = await first_event(connection, self.projection, towards)
            if event is None:
                return
            place = (towards.generation, towards.moment, towards.target, towards.position)
            await connection.execute(_FAIL, self.projection.name, *place, reason, *event.values())
        raise ProjectionFailed(self.projection.name, event["run_id"], event["version"], reason)


class _FunctionFailed(Exception):
    """The projection's function raised."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


def _check_known(event: Event) -> None:
    # A type that only a newer release knows is passed on, as a user's is; functions pass it over.
    own = event.type in CATALOGUE and event.type.split(".", 1)[0] in RESERVED
    if isinstance(event, OpaqueEvent) and own:
        why = "this code is older than the event"
        raise UnknownEvent(event.type, event.schema_version, why)


def _is_cancelled(error: BaseException) -> bool:
    """Whether the caller is cancelled; a function may raise the same error by itself."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def checked(projection: Projection, row: Mapping[str, Any] | None) -> Checkpoint:
    """Return the checkpoint of an installed projection; raise what keeps it from going on."""
    if row is None:
        raise ProjectionNotFound(projection.name, ())
    if row["version"] != projection.version:
        raise OtherVersion(projection.name, projection.version, row["version"])
    if row["digest"] != projection.digest:
        raise Redeclared(projection.name, projection.version)
    if row["paused_at"] is not None:
        raise ProjectionPaused(projection.name)
    if row["failed_at"] is not None:
        raise ProjectionFailed(
            projection.name, row["error_run_id"], row["error_version"], row["error"]
        )
    return checkpoint_of(row)


def checkpoint_of(row: Mapping[str, Any]) -> Checkpoint:
    """Return the checkpoint that a row of `ledger.projection` keeps. Raises CheckpointUnknown."""
    columns = (row["generation"], row["snapshot"], row["target"], row["position"])
    return Checkpoint.kept(str(Checkpoint(*columns)))
