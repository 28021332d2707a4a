"""Many writers at once, with delays, aborts and savepoints: the feed loses and reorders nothing."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from runfold.ledger import Ledger
from runfold.ledger.postgres.urls import driver_url
from tests.ledger.reading.test_feed import note
from tests.support.feeding import Reader, assert_complete, stored

WRITERS = 8
TRANSACTIONS = 100
RUNS = 40


@pytest.mark.slow
async def test_a_storm_of_transactions_over_many_runs_is_read_once_and_in_order(
    ledger: Ledger, database: str
) -> None:
    runs = [one.run_id for one in await ledger.submit_many([{"kind": "parse"}] * RUNS)]
    live, slow = Reader(ledger.pool, 500), Reader(ledger.pool, 100)
    chance = [random.Random(seed) for seed in range(WRITERS)]  # noqa: S311  a repeatable storm
    writing = asyncio.gather(
        inverted(database, runs[0]), *(write(database, runs, one) for one in chance)
    )
    while not writing.done():
        await live.page()
        await slow.page()
    committed = sum(await writing)

    await live.drain()
    await slow.drain()
    behind = Reader(ledger.pool, 300)
    await behind.drain()
    events = await stored(ledger.pool)
    assert len(events) == committed + RUNS > 2_000
    for reader in (live, slow, behind):
        assert_complete(reader, events)
    assert await inversions(ledger) > 0


async def inverted(url: str, run: UUID) -> int:
    """Append to a run, and then in a transaction that has a lower id; return the events kept."""
    early = await asyncpg.connect(driver_url(url))
    late = await asyncpg.connect(driver_url(url))
    try:
        async with early.transaction():
            await early.fetchval("SELECT pg_current_xact_id()::text")
            await note(late, run)
            await note(early, run)
    finally:
        await early.close()
        await late.close()
    return 2


async def write(url: str, runs: list[UUID], chance: random.Random) -> int:
    """Write transactions over some runs, some slow, some undone; return the events kept."""
    connection = await asyncpg.connect(driver_url(url))
    kept = 0
    try:
        # By default each deadlock takes a second: most of the test's time.
        await connection.execute("SET deadlock_timeout = '20ms'")
        for _ in range(TRANSACTIONS):
            with suppress(asyncpg.DeadlockDetectedError, Abort):
                kept += await transact(connection, runs, chance)
    finally:
        await connection.close()
    return kept


class Abort(Exception):
    """The transaction is given up."""


async def transact(
    connection: asyncpg.Connection[Any], runs: list[UUID], chance: random.Random
) -> int:
    """Write one transaction."""
    kept = 0
    async with connection.transaction():
        if chance.random() < 0.3:  # an id long before the first event
            await connection.fetchval("SELECT pg_current_xact_id()::text")
            await connection.execute("SELECT pg_sleep($1)", chance.random() / 50)
        for _ in range(chance.randint(1, 3)):
            some = chance.sample(runs, chance.randint(1, 4))
            part = connection.transaction()
            await part.start()
            await note(connection, *some)
            if chance.random() < 0.1:
                await part.rollback()
            else:
                await part.commit()
                kept += len(some)
            if chance.random() < 0.1:
                await connection.execute("SELECT pg_sleep($1)", chance.random() / 50)
        if chance.random() < 0.1:
            raise Abort
    return kept


async def inversions(ledger: Ledger) -> int:
    """Count the events whose transaction id is lower than that of their run's event before."""
    return int(
        await ledger.pool.fetchval(
            "SELECT count(*) FROM ledger.event AS e JOIN ledger.event AS p USING (project_id, "
            "run_id) WHERE p.version = e.version - 1 AND p.txid > e.txid"
        )
    )
