"""Catching up: a projection takes what is new, page by page, and moves its checkpoint in the transaction that writes its rows.

    lock the checkpoint -> read a page of the feed -> fold and merge it, or apply it -> move the checkpoint -> commit

A page that fails is halved until the event that cannot be taken stands alone; the projection stops before it and says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from runfold.ledger.errors import UnknownEvent
from runfold.ledger.events import OpaqueEvent
from runfold.ledger.lifecycle import RESERVED
from runfold.ledger.postgres.connections import FAILURES, Pool, translated
from runfold.ledger.reading import feed
from runfold.ledger.reading.feed import Checkpoint, Filter, page_arguments
from runfold.ledger.validation import check_int
from runfold.projections.declared.projection import Projection
from runfold.projections.declared.statements import taken_sql
from runfold.projections.errors import (
    OtherVersion,
    ProjectionFailed,
    ProjectionNotFound,
    ProjectionPaused,
    Redeclared,
)

BATCH: Final = 5_000
MAX_BATCH: Final = 100_000
_ERROR_LIMIT: Final = 2_000
_BAD_DATA: Final = frozenset({"21", "22", "23", "P0", "RF"})
"""Classes of SQLSTATE that say something about the events, not about the server."""

_LOCKED: Final = "SELECT * FROM ledger.projection WHERE name = $1 FOR UPDATE"
_PLANS: Final = "SET LOCAL enable_seqscan = off; SET LOCAL jit = off; SET LOCAL work_mem = '64MB'"
_SKIPPED: Final = "SELECT position FROM ledger.projection_skip WHERE name = $1 AND version = $2"
_MOVED: Final = """
UPDATE ledger.projection SET generation = $2, snapshot = $3, target = $4, position = $5, events = events + $6,
  moved_at = clock_timestamp()
WHERE name = $1
"""
_ONE: Final = f"SELECT e.project_id, e.run_id, e.version, e.position FROM {feed.PAGE} AS e"
_FAILED: Final = """
UPDATE ledger.projection SET generation = $2, snapshot = $3, target = $4, position = $5, failed_at = clock_timestamp(),
  error = $6, error_project_id = $7, error_run_id = $8, error_version = $9, error_position = $10
WHERE name = $1
"""


@dataclass(frozen=True, slots=True)
class Page:
    """What was taken: how many events, and the checkpoint after them."""

    events: int
    checkpoint: Checkpoint


class CatchUp:
    """Brings one installed projection up to date.

    Any number of processes may do so at once: they take turns, a page each.
    """

    def __init__(self, pool: Pool, projection: Projection, *, batch: int = BATCH) -> None:
        """Start nothing yet; `batch` is the most events of a transaction. Raises InvalidValue."""
        self.pool, self.projection = pool, projection
        self.batch = check_int("batch", batch, least=1, most=MAX_BATCH)
        self._limit = self.batch

    async def to_the_end(self) -> int:
        """Take pages until nothing is new; return how many events they had. Raises as `step` does."""
        events = 0
        while (taken := await self.step()) is not None:
            events += taken
        return events

    async def step(self) -> int | None:
        """Take one page and commit it; return how many events it had, or None when nothing is new.

        Raises ProjectionFailed at an event that cannot be taken, ProjectionPaused, ProjectionNotFound, OtherVersion,
        Redeclared, FeedMoved, FeedOnStandby or DatabaseUnavailable.
        """
        try:
            async with self.pool.acquire() as connection:
                while True:
                    try:
                        taken = await self._step(connection, self._limit)
                    except _Bad:
                        if self._limit > 1:
                            self._limit //= 2
                            continue
                        await self._stop(connection)
                    self._limit = min(self.batch, self._limit * 2)
                    return taken
        except (*FAILURES, OSError) as error:
            raise translated(error) from error

    async def _step(self, connection: Any, limit: int) -> int | None:
        async with connection.transaction():
            towards = await self._towards(connection, limit)
            if towards is None:
                return None
            page = await self._take(connection, towards, limit)
            after = page.checkpoint
            given = (after.generation, after.moment, after.target, after.position, page.events)
            await connection.execute(_MOVED, self.projection.name, *given)
            return page.events

    async def _towards(self, connection: Any, limit: int) -> Checkpoint | None:
        row = await connection.fetchrow(_LOCKED, self.projection.name)
        checkpoint = checked(self.projection, row)
        return await feed.towards(connection, checkpoint, limit)

    async def _take(self, connection: Any, towards: Checkpoint, limit: int) -> Page:
        if self.projection.apply is None:
            try:
                async with connection.transaction():
                    return await merge_page(connection, self.projection, towards, limit)
            except asyncpg.PostgresError as error:
                if (error.sqlstate or "")[:2] not in _BAD_DATA:
                    raise
                raise _Bad(error) from error
        try:
            async with connection.transaction():
                return await self._apply(connection, towards, limit)
        except Exception as error:
            if connection.is_closed():
                raise
            raise _Bad(error) from error

    async def _apply(self, connection: Any, towards: Checkpoint, limit: int) -> Page:
        assert self.projection.apply is not None
        events, after = await feed.read(connection, towards, limit, which(self.projection))
        given = (self.projection.name, self.projection.version)
        skipped = {row["position"] for row in await connection.fetch(_SKIPPED, *given)}
        for event in events:
            if isinstance(event, OpaqueEvent) and event.type.split(".", 1)[0] in RESERVED:
                raise UnknownEvent(
                    event.type, event.schema_version, "this code is older than the event"
                )
        await self.projection.apply(
            connection, [event for event in events if event.position not in skipped]
        )
        return Page(len(events), after)

    async def _stop(self, connection: Any) -> None:
        """Stop before the first event of the page, if it is still the one that cannot be taken; raise ProjectionFailed."""
        async with connection.transaction():
            towards = await self._towards(connection, 1)
            if towards is None:
                return
            try:
                await self._take(connection, towards, 1)
            except _Bad as bad:
                row = await connection.fetchrow(
                    _ONE, *page_arguments(towards, 1, which(self.projection))
                )
                reason = f"{type(bad.error).__name__}: {bad.error}"[:_ERROR_LIMIT].replace(
                    "\x00", ""
                )
                place = (towards.generation, towards.moment, towards.target, towards.position)
                await connection.execute(
                    _FAILED, self.projection.name, *place, reason, *row.values()
                )
                failed = ProjectionFailed(
                    self.projection.name, row["run_id"], row["version"], reason
                )
            else:
                return
        raise failed


class _Bad(Exception):
    """A page cannot be taken because of what is in it."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


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
    """Return the checkpoint that a row of `ledger.projection` keeps."""
    return Checkpoint(row["generation"], row["snapshot"], row["target"], row["position"])


def which(projection: Projection) -> Filter:
    """Return which events the projection reads."""
    types = None if projection.types is None else sorted(projection.types)
    return Filter(
        types=types,
        without=["lease.heartbeat"] if projection.apply is not None and types is None else None,
    )


async def merge_page(
    connection: Any,
    projection: Projection,
    towards: Checkpoint,
    limit: int,
    table: str | None = None,
) -> Page:
    """Fold the next page and merge it into the projection's table, or into one like it."""
    await connection.execute(_PLANS)
    page = f"SELECT e.* FROM {feed.PAGE} AS e"
    statement = taken_sql(projection, page, table or projection.table)
    row = await connection.fetchrow(statement, *page_arguments(towards, limit, which(projection)))
    after = towards.moved(row["position"]) if row["events"] >= limit else towards.arrived()
    return Page(row["events"], after)
