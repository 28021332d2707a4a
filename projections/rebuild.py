"""The engine of every rebuild: a shadow table is filled range by range while writers go on.

    cut the runs into ranges -> fill them, each in a transaction that also marks it done -> the
    shadow table is whole

A *rebuild* folds all events again, beside the live table; this module knows nothing of what is
folded. A *replay* (`state/replay.py`) is the rebuild of `run_state`: it exchanges single rows,
since the table is part of the write path. A *refold* (`declared/refold.py`) is the rebuild of a
declared projection: it exchanges the whole table.

A range whose fold fails is cut in two until the failure has a run's name; the other runs go on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from typing import Any, Final, Self
from uuid import UUID

import asyncpg

from runfold.ledger.access import EVERYWHERE
from runfold.ledger.archive.record import detached
from runfold.ledger.errors import DatabaseUnavailable
from runfold.ledger.postgres.at_work import at_work
from runfold.ledger.postgres.connections import FAILURES, Pool, fetch
from runfold.ledger.postgres.errors import translated
from runfold.ledger.reading.permitted import permitted
from runfold.ledger.validation import check_int
from runfold.projections import rebuild_ranges as ranges
from runfold.projections.bad_data import is_bad_data
from runfold.projections.errors import RebuildFailed, RebuildRunning
from runfold.projections.rebuild_plan import BadRun, OnProgress, RebuildPlan, RebuildProgress

EVENTS_A_RANGE: Final = 60_000
MAX_ERRORS: Final = 100
FOLDING: Final = (
    "SET LOCAL jit = off; SET LOCAL work_mem = '64MB'; "
    "SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL TimeZone = 'UTC'; "
    "SET LOCAL DateStyle = 'ISO, MDY'; SET LOCAL IntervalStyle = 'postgres'"
)
"""For a transaction that folds: the same functions and the same meaning of texts for each login."""

_UNFINISHED: Final = """
SELECT rebuild_id, moment FROM ledger.rebuild
WHERE projection = $1 AND project_id IS NOT DISTINCT FROM $2 AND until IS NOT DISTINCT FROM $3
  AND definition = $4 AND finished_at IS NULL
  AND to_regclass(format('%s.rebuild_%s_of_%s', $5::text, rebuild_id, projection)) IS NOT NULL
ORDER BY rebuild_id DESC LIMIT 1
"""
_BEGIN: Final = """
INSERT INTO ledger.rebuild (projection, project_id, until, definition, moment)
VALUES ($1, $2, $3, $4, $5) RETURNING rebuild_id
"""
_FINISHED: Final = "UPDATE ledger.rebuild SET finished_at = clock_timestamp() WHERE rebuild_id = $1"
_RETRY_FAILED: Final = """
UPDATE ledger.rebuild_range SET error = NULL, done_at = NULL
WHERE rebuild_id = $1 AND error IS NOT NULL
"""
_OPEN_RANGE: Final = """
SELECT first, last FROM ledger.rebuild_range WHERE rebuild_id = $1 AND done_at IS NULL
ORDER BY first LIMIT 1 FOR UPDATE
"""
_PROGRESS: Final = """
SELECT count(*) AS ranges, count(done_at) AS done, coalesce(sum(row_count), 0)::bigint AS rows,
  coalesce(sum(event_count), 0)::bigint AS events, count(error) AS errors
FROM ledger.rebuild_range WHERE rebuild_id = $1
"""
_LEFT_OVER: Final = """
SELECT format('%I.%I', $3::text, relation.relname) AS name
FROM ledger.rebuild AS rebuild JOIN pg_class AS relation
  ON regexp_replace(relation.relname, '_replaced$', '')
    = format('rebuild_%s_of_%s', rebuild.rebuild_id, $1::text)
WHERE rebuild.projection = $1 AND rebuild.project_id IS NOT DISTINCT FROM $2
  AND rebuild.finished_at IS NOT NULL
  AND relation.relnamespace = to_regnamespace($3) AND relation.relkind = 'r'
  ORDER BY rebuild.rebuild_id, relation.relname
"""
_OPEN: Final = """
SELECT rebuild_id FROM ledger.rebuild
WHERE projection = $1 AND project_id IS NOT DISTINCT FROM $2 AND finished_at IS NULL
ORDER BY rebuild_id
"""
_GRACE_SECONDS: Final = 5.0
_ERRORS: Final = """
SELECT first AS run_id, error FROM ledger.rebuild_range
WHERE rebuild_id = $1 AND error IS NOT NULL ORDER BY first LIMIT $2
"""


class Rebuild:
    """One rebuild, which a later process resumes where a killed one was."""

    def __init__(
        self, pool: Pool, plan: RebuildPlan, rebuild_id: int, moment: str | None, *, resumed: bool
    ) -> None:
        self.pool, self.plan, self.rebuild_id = pool, plan, rebuild_id
        self.moment, self.resumed = moment, resumed
        self.shadow = f"{plan.schema}.rebuild_{rebuild_id}_of_{plan.projection}"
        self._began = time.monotonic()
        self._events_before, self._done_before = 0, 0

    @classmethod
    @asynccontextmanager
    async def begin(
        cls, pool: Pool, plan: RebuildPlan, *, events_a_range: int = EVENTS_A_RANGE
    ) -> AsyncIterator[Self]:
        """Resume the unfinished rebuild by this plan, or begin one; no other process works on it.

        Raises RebuildRunning, or AccessDenied without the right to make tables.
        """
        check_int("events_a_range", events_a_range, least=1)
        try:
            async with pool.acquire() as connection:
                # One at a time: whoever comes second finds the rebuild that the first began.
                beginning = at_work(
                    connection, f"a rebuild of {plan.projection}", wait_seconds=_GRACE_SECONDS
                )
                async with beginning, connection.transaction():
                    begun = await cls._resumed_or_begun(connection, pool, plan, events_a_range)
                async with AsyncExitStack() as work:
                    await _exclude_others(connection, begun, work)
                    yield begun
        except (*FAILURES, OSError) as error:
            raise translated(error, (plan.project_id,)) from error

    @classmethod
    async def _resumed_or_begun(
        cls, connection: Any, pool: Pool, plan: RebuildPlan, events_a_range: int
    ) -> Self:
        key = (plan.projection, plan.project_id, plan.until, plan.definition())
        if unfinished := await connection.fetchrow(_UNFINISHED, *key, plan.schema):
            await connection.execute(_RETRY_FAILED, unfinished["rebuild_id"])
            return cls(pool, plan, unfinished["rebuild_id"], unfinished["moment"], resumed=True)
        rebuild_id = await connection.fetchval(_BEGIN, *key, plan.moment)
        begun = cls(pool, plan, rebuild_id, plan.moment, resumed=False)
        await connection.execute(plan.create.format(shadow=begun.shadow))
        await ranges.cut(connection, begun.rebuild_id, plan.project_id, events_a_range)
        return begun

    async def fill(
        self, connections: int, *, strict: bool = False, on_progress: OnProgress | None = None
    ) -> list[BadRun]:
        """Fill every open range, over `connections`; return runs that cannot be folded.

        At most 100 are returned. Raises RebuildFailed for the first of them when `strict`.
        """
        before = await self.progress()
        self._began = time.monotonic()
        self._events_before, self._done_before = before.events, before.done
        workers = [
            asyncio.create_task(self._work(strict=strict, on_progress=on_progress))
            for _ in range(connections)
        ]
        try:
            await asyncio.gather(*workers)
        except (*FAILURES, OSError) as error:
            raise translated(error, (self.plan.project_id,)) from error
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        async with self.pool.acquire() as connection, self._permitted(connection):
            rows = await connection.fetch(_ERRORS, self.rebuild_id, MAX_ERRORS)
        return [BadRun(row["run_id"], row["error"]) for row in rows]

    async def progress(self) -> RebuildProgress:
        """Return how far it is."""
        (row,) = await fetch(self.pool, _PROGRESS, self.rebuild_id)
        took = max(time.monotonic() - self._began, 0.001)
        here = row["done"] - self._done_before
        left = (row["ranges"] - row["done"]) * took / here if here else None
        return RebuildProgress(
            **row,
            seconds=took,
            events_per_second=(row["events"] - self._events_before) / took,
            seconds_left=left,
        )

    async def finish(self, *, keep: bool) -> None:
        """Mark the rebuild as finished; drop the shadow table unless it is kept."""
        if not keep:
            await fetch(self.pool, f"DROP TABLE IF EXISTS {self.shadow}")
        await fetch(self.pool, _FINISHED, self.rebuild_id)

    async def _work(self, *, strict: bool, on_progress: OnProgress | None) -> None:
        while await self._fill_next(strict=strict):
            if on_progress is not None:
                on_progress(await self.progress())

    async def _fill_next(self, *, strict: bool) -> bool:
        """Fill the next open range; return False when none is left."""
        async with (
            self.pool.acquire() as connection,
            connection.transaction(),
            self._permitted(connection),
        ):
            # Ranges that others work on come last and are waited for: if the others die, they are
            # open again.
            row = await connection.fetchrow(f"{_OPEN_RANGE} SKIP LOCKED", self.rebuild_id)
            row = row or await connection.fetchrow(_OPEN_RANGE, self.rebuild_id)
            if row is None:
                return False
            await self._check_months(connection, row["first"], row["last"])
            await connection.execute(f"SET LOCAL synchronous_commit = off; {FOLDING}")
            moment = [self.moment] if self.moment else []
            arguments = (row["first"], row["last"], *self.plan.args, *moment)
            try:
                async with connection.transaction():
                    (filled,) = await connection.fetch(
                        self.plan.fill.format(shadow=self.shadow), *arguments
                    )
                    await ranges.mark_filled(
                        connection, self.rebuild_id, row["first"], filled["rows"], filled["events"]
                    )
            except asyncpg.PostgresError as error:
                if not is_bad_data(error):
                    raise
                bad = await ranges.narrow(
                    connection,
                    self.rebuild_id,
                    self.plan.project_id,
                    (row["first"], row["last"]),
                    error,
                )
            else:
                return True
        if bad is not None and strict:
            raise RebuildFailed(self.plan.projection, bad)
        return True

    async def _check_months(self, connection: Any, first: UUID, last: UUID) -> None:
        """Raise DatabaseUnavailable if a month of a range is detached.

        The session that keeps others from detaching months may have ended meanwhile. From here to
        the commit, a lock on the table keeps them from it.
        """
        await connection.execute("LOCK TABLE ledger.event IN ACCESS SHARE MODE")
        if months := await detached(connection, first, last):
            raise DatabaseUnavailable(
                None,
                f"the session that kept {months[0].month} from being detached has ended, and the"
                f" month was detached: rebuild {self.plan.projection} again, it is resumed",
            )

    def _permitted(self, connection: Any) -> AbstractAsyncContextManager[None]:
        return permitted(connection, self.plan.project_id or EVERYWHERE, "read")


async def _exclude_others(connection: Any, rebuild: Rebuild, work: AsyncExitStack) -> None:
    """Keep other processes from this rebuild until `work` is left. Raises RebuildRunning."""
    # A process that was killed keeps others out until the server sees that its connection ended.
    name = f"rebuild {rebuild.rebuild_id}"
    try:
        await work.enter_async_context(at_work(connection, name, wait_seconds=_GRACE_SECONDS))
    except asyncpg.LockNotAvailableError:
        raise RebuildRunning(rebuild.plan.projection, rebuild.rebuild_id) from None


async def give_up(pool: Pool, projection: str, project_id: str | None = None) -> None:
    """Mark as finished the rebuilds that were broken off and that no process resumes now."""
    try:
        async with pool.acquire() as connection:
            for row in await connection.fetch(_OPEN, projection, project_id):
                with suppress(asyncpg.LockNotAvailableError):
                    async with at_work(connection, f"rebuild {row['rebuild_id']}"):
                        await connection.execute(_FINISHED, row["rebuild_id"])
    except (*FAILURES, OSError) as error:
        raise translated(error, (project_id,)) from error


async def drop_old(pool: Pool, plan: RebuildPlan) -> list[str]:
    """Drop the tables that rebuilds by this plan left behind; return their names.

    A rebuild that was broken off, and that no process resumes now, is given up.
    """
    await give_up(pool, plan.projection, plan.project_id)
    rows = await fetch(pool, _LEFT_OVER, plan.projection, plan.project_id, plan.schema)
    for row in rows:
        await fetch(pool, f"DROP TABLE {row['name']}")
    return [row["name"] for row in rows]
