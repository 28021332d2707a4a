"""Rebuilding: a shadow table filled by ranges of runs, in parallel, resumable after a kill, while writers go on.

    cut the runs into ranges -> fill them, each in a transaction that also marks it done -> the shadow table is whole

A range whose fold fails is cut in two until the failure has a run's name; the other runs go on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Final, Self, TypeAlias
from uuid import UUID

import asyncpg

from runfold.ledger.errors import LedgerError
from runfold.ledger.postgres.connections import FAILURES, Pool, fetch, translated
from runfold.ledger.validation import check_int

EVENTS_A_RANGE: Final = 60_000
MAX_ERRORS: Final = 100
_FIRST, _LAST = UUID(int=0), UUID(int=2**128 - 1)
_SAMPLED_BLOCKS: Final = 20_000
_BAD_DATA: Final = frozenset({"21", "22", "23", "P0", "RF"})
"""Classes of SQLSTATE that say something about the events, not about the server."""

_RESUMED: Final = """
SELECT rebuild_id, moment FROM ledger.rebuild
WHERE projection = $1 AND project_id IS NOT DISTINCT FROM $2 AND until IS NOT DISTINCT FROM $3 AND definition = $4
  AND finished_at IS NULL ORDER BY rebuild_id DESC LIMIT 1
"""
_BEGUN: Final = """
INSERT INTO ledger.rebuild (projection, project_id, until, definition, moment) VALUES ($1, $2, $3, $4, $5) RETURNING rebuild_id
"""
_FORGIVEN: Final = """
UPDATE ledger.rebuild_range SET error = NULL, done_at = NULL WHERE rebuild_id = $1 AND error IS NOT NULL
"""
_BLOCKS: Final = """
SELECT sum(pg_relation_size(t.relid)) / current_setting('block_size')::int FROM pg_partition_tree('ledger.event') AS t
WHERE t.isleaf
"""
_SAMPLE: Final = """
SELECT e.run_id FROM ledger.event AS e TABLESAMPLE SYSTEM ($1) WHERE $2::text IS NULL OR e.project_id = $2 ORDER BY e.run_id
"""
_CUT: Final = "INSERT INTO ledger.rebuild_range (rebuild_id, first, last) SELECT $1, * FROM unnest($2::uuid[], $3::uuid[])"
_TAKEN: Final = """
SELECT first, last FROM ledger.rebuild_range WHERE rebuild_id = $1 AND done_at IS NULL ORDER BY first LIMIT 1 FOR UPDATE
"""
_DONE: Final = """
UPDATE ledger.rebuild_range SET row_count = $3, event_count = $4, error = $5, done_at = clock_timestamp()
WHERE rebuild_id = $1 AND first = $2
"""
_ENDS: Final = """
SELECT (SELECT run_id FROM ledger.event WHERE ($1::text IS NULL OR project_id = $1) AND run_id BETWEEN $2 AND $3
    ORDER BY run_id LIMIT 1) AS lowest,
  (SELECT run_id FROM ledger.event WHERE ($1::text IS NULL OR project_id = $1) AND run_id BETWEEN $2 AND $3
    ORDER BY run_id DESC LIMIT 1) AS highest
"""
_SHRUNK: Final = "UPDATE ledger.rebuild_range SET last = $3 WHERE rebuild_id = $1 AND first = $2"
_STANDING: Final = """
SELECT count(*) AS ranges, count(done_at) AS done, coalesce(sum(row_count), 0)::bigint AS rows,
  coalesce(sum(event_count), 0)::bigint AS events, count(error) AS errors
FROM ledger.rebuild_range WHERE rebuild_id = $1
"""
_LEFT: Final = """
SELECT format('%I.%I', $3::text, c.relname) AS name
FROM ledger.rebuild AS r JOIN pg_class AS c
  ON regexp_replace(c.relname, '_replaced$', '') = format('rebuild_%s_of_%s', r.rebuild_id, $1::text)
WHERE r.projection = $1 AND r.project_id IS NOT DISTINCT FROM $2 AND r.finished_at IS NOT NULL
  AND c.relnamespace = to_regnamespace($3) AND c.relkind = 'r' ORDER BY r.rebuild_id, c.relname
"""
_ERRORS: Final = """
SELECT first AS run_id, error FROM ledger.rebuild_range WHERE rebuild_id = $1 AND error IS NOT NULL ORDER BY first LIMIT $2
"""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is rebuilt and how: `create` makes the table {shadow}; `fill` fills one range of runs of it.

    `fill` takes the first and the last run, then `args`, then the moment if there is one, and gives how many rows it
    wrote from how many events. `moment` is what was visible when the rebuild began; a resumed one keeps the first.
    """

    projection: str
    create: str
    fill: str
    args: tuple[Any, ...] = ()
    project_id: str | None = None
    until: datetime | None = None
    moment: str | None = None
    schema: str = "ledger"

    def definition(self) -> str:
        """Name the recipe by its content: a rebuild by another one is not resumed."""
        return sha256(f"{self.create}\n{self.fill}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a rebuild is; the rate counts what was done since it began or was resumed."""

    ranges: int
    done: int
    rows: int
    events: int
    errors: int
    seconds: float
    events_per_second: float
    seconds_left: float | None


@dataclass(frozen=True, slots=True)
class BadRun:
    """A run whose history could not be folded."""

    run_id: UUID
    error: str


class RebuildFailed(LedgerError):
    """With `strict`, a run's history cannot be folded; what was done until then is kept."""

    def __init__(self, projection: str, bad: BadRun) -> None:
        self.projection, self.run_id, self.error = projection, bad.run_id, bad.error
        super().__init__(f"the rebuild of {projection} stopped at run {bad.run_id}: {bad.error}")


class RebuildRunning(LedgerError):
    """Another process is working on the same rebuild."""

    def __init__(self, projection: str, rebuild_id: int) -> None:
        self.projection, self.rebuild_id = projection, rebuild_id
        super().__init__(
            f"rebuild {rebuild_id} of {projection} is running already: wait for it, or stop it to resume it here"
        )


Told: TypeAlias = Callable[[Standing], None]


class Rebuild:
    """One rebuild, which a later process resumes where a killed one was."""

    def __init__(
        self, pool: Pool, recipe: Recipe, rebuild_id: int, moment: str | None, *, resumed: bool
    ) -> None:
        self.pool, self.recipe, self.rebuild_id, self.moment, self.resumed = (
            pool,
            recipe,
            rebuild_id,
            moment,
            resumed,
        )
        self.shadow = f"{recipe.schema}.rebuild_{rebuild_id}_of_{recipe.projection}"
        self._began, self._events_before, self._done_before = time.monotonic(), 0, 0

    @classmethod
    @asynccontextmanager
    async def begin(
        cls, pool: Pool, recipe: Recipe, *, events_a_range: int = EVENTS_A_RANGE
    ) -> AsyncIterator[Self]:
        """Resume the unfinished rebuild by this recipe, or begin one; it is this process's while the block lasts.

        Raises RebuildRunning, or AccessDenied without the right to make tables.
        """
        check_int("events_a_range", events_a_range, least=1)
        try:
            async with pool.acquire() as connection:
                async with connection.transaction():
                    await connection.execute(
                        "SELECT pg_advisory_xact_lock(hashtextextended('ledger.rebuild', 0))"
                    )
                    begun = await cls._begun(connection, pool, recipe, events_a_range)
                await _own(connection, begun)
                try:
                    yield begun
                finally:
                    await connection.execute(
                        "SELECT pg_advisory_unlock(hashtext('ledger.rebuild'), $1)",
                        begun.rebuild_id,
                    )
        except (*FAILURES, OSError) as error:
            raise translated(error, (recipe.project_id,)) from error

    @classmethod
    async def _begun(cls, connection: Any, pool: Pool, recipe: Recipe, events_a_range: int) -> Self:
        key = (recipe.projection, recipe.project_id, recipe.until, recipe.definition())
        if found := await connection.fetchrow(_RESUMED, *key):
            await connection.execute(_FORGIVEN, found["rebuild_id"])
            return cls(pool, recipe, found["rebuild_id"], found["moment"], resumed=True)
        begun = cls(
            pool,
            recipe,
            await connection.fetchval(_BEGUN, *key, recipe.moment),
            recipe.moment,
            resumed=False,
        )
        await connection.execute(recipe.create.format(shadow=begun.shadow))
        bounds = await _bounds(connection, recipe.project_id, events_a_range)
        lasts = [*(UUID(int=first.int - 1) for first in bounds[1:]), _LAST]
        await connection.execute(_CUT, begun.rebuild_id, bounds, lasts)
        return begun

    async def fill(
        self, connections: int, *, strict: bool = False, told: Told | None = None
    ) -> list[BadRun]:
        """Fill every range that is not filled yet, over so many connections; give at most 100 runs that cannot be folded.

        Raises RebuildFailed for the first of them when `strict`.
        """
        before = await self.standing()
        self._began, self._events_before, self._done_before = (
            time.monotonic(),
            before.events,
            before.done,
        )
        workers = [
            asyncio.create_task(self._work(strict=strict, told=told)) for _ in range(connections)
        ]
        try:
            await asyncio.gather(*workers)
        except (*FAILURES, OSError) as error:
            raise translated(error, (self.recipe.project_id,)) from error
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        return [
            BadRun(row["run_id"], row["error"])
            for row in await fetch(self.pool, _ERRORS, self.rebuild_id, MAX_ERRORS)
        ]

    async def standing(self) -> Standing:
        """Say how far it is."""
        (row,) = await fetch(self.pool, _STANDING, self.rebuild_id)
        took = max(time.monotonic() - self._began, 0.001)
        here = row["done"] - self._done_before
        left = (row["ranges"] - row["done"]) * took / here if here else None
        return Standing(
            **row,
            seconds=took,
            events_per_second=(row["events"] - self._events_before) / took,
            seconds_left=left,
        )

    async def finish(self, *, keep: bool) -> None:
        """Mark the rebuild as finished; drop the shadow table unless it is kept."""
        if not keep:
            await fetch(self.pool, f"DROP TABLE IF EXISTS {self.shadow}")
        await fetch(
            self.pool,
            "UPDATE ledger.rebuild SET finished_at = clock_timestamp() WHERE rebuild_id = $1",
            self.rebuild_id,
        )

    async def _work(self, *, strict: bool, told: Told | None) -> None:
        while await self._take(strict=strict):
            if told is not None:
                told(await self.standing())

    async def _take(self, *, strict: bool) -> bool:
        """Take a range and fill it; give False when none is left."""
        async with self.pool.acquire() as connection, connection.transaction():
            # What others work on comes last, and is waited for: if they die, their ranges are open again.
            row = await connection.fetchrow(f"{_TAKEN} SKIP LOCKED", self.rebuild_id)
            row = row or await connection.fetchrow(_TAKEN, self.rebuild_id)
            if row is None:
                return False
            await connection.execute(
                "SET LOCAL synchronous_commit = off; SET LOCAL jit = off; SET LOCAL work_mem = '64MB'"
            )
            given = (
                row["first"],
                row["last"],
                *self.recipe.args,
                *([self.moment] if self.moment else []),
            )
            try:
                async with connection.transaction():
                    (filled,) = await connection.fetch(
                        self.recipe.fill.format(shadow=self.shadow), *given
                    )
                    await connection.execute(
                        _DONE, self.rebuild_id, row["first"], filled["rows"], filled["events"], None
                    )
            except asyncpg.PostgresError as error:
                if (error.sqlstate or "")[:2] not in _BAD_DATA:
                    raise
                bad = await self._narrow(connection, row["first"], row["last"], error)
            else:
                return True
        if bad is not None and strict:
            raise RebuildFailed(self.recipe.projection, bad)
        return True

    async def _narrow(
        self, connection: Any, first: UUID, last: UUID, failure: Exception
    ) -> BadRun | None:
        """Cut a failing range in two; or, when it holds one run only, set that run apart."""
        ends = await connection.fetchrow(_ENDS, self.recipe.project_id, first, last)
        lowest, highest = ends["lowest"], ends["highest"]
        if lowest is None:
            raise failure
        if lowest != highest:
            middle = UUID(int=(lowest.int + highest.int) // 2)
            await connection.execute(_SHRUNK, self.rebuild_id, first, middle)
            await connection.execute(_CUT, self.rebuild_id, [UUID(int=middle.int + 1)], [last])
            return None
        if first < lowest:
            await connection.execute(_SHRUNK, self.rebuild_id, first, UUID(int=lowest.int - 1))
            await connection.execute(_CUT, self.rebuild_id, [lowest], [lowest])
        else:
            await connection.execute(_SHRUNK, self.rebuild_id, first, lowest)
        if lowest < last:
            await connection.execute(_CUT, self.rebuild_id, [UUID(int=lowest.int + 1)], [last])
        await connection.execute(_DONE, self.rebuild_id, lowest, 0, 0, str(failure))
        return BadRun(lowest, str(failure))


async def _own(connection: Any, rebuild: Rebuild) -> None:
    # A killed process's lock ends with its connection, which the server may take a moment to see.
    await connection.execute("SET lock_timeout = '5s'")
    try:
        await connection.execute(
            "SELECT pg_advisory_lock(hashtext('ledger.rebuild'), $1)", rebuild.rebuild_id
        )
    except asyncpg.LockNotAvailableError:
        raise RebuildRunning(rebuild.recipe.projection, rebuild.rebuild_id) from None
    finally:
        await connection.execute("RESET lock_timeout")


async def _bounds(connection: Any, project_id: str | None, events_a_range: int) -> list[UUID]:
    """Give where ranges of about so many events begin, from a sample of the events' pages."""
    blocks = int(await connection.fetchval(_BLOCKS) or 0)
    percent = min(100.0, 100 * _SAMPLED_BLOCKS / max(blocks, 1))
    step = max(1, int(events_a_range * percent / 100))
    sampled = [row["run_id"] for row in await connection.fetch(_SAMPLE, percent, project_id)]
    return [_FIRST, *sorted(set(sampled[step::step]))]


async def drop_old(
    pool: Pool, projection: str, project_id: str | None, schema: str = "ledger"
) -> list[str]:
    """Drop every table that finished rebuilds of the projection left behind; give their names."""
    rows = await fetch(pool, _LEFT, projection, project_id, schema)
    for row in rows:
        await fetch(pool, f"DROP TABLE {row['name']}")
    return [row["name"] for row in rows]
