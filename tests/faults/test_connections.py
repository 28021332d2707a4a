"""Logins with few connections: the heart has its own before anything is claimed, and keeps it."""

from __future__ import annotations

from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import asyncpg
import pytest
from structlog.testing import capture_logs

from runfold import Context, Ledger, handler
from runfold.ledger import names
from tests.support.databases import PROJECT
from tests.support.logins import login_of, with_login
from tests.support.processes import assert_story, said, worker
from tests.support.waiting import until
from tests.support.working import LONG, ended, working

BESIDE_THE_POOL = (
    "SELECT count(*) = 2 FROM pg_stat_activity "
    "WHERE usename = $1 AND application_name IN ('runfold heart', 'runfold-wakeup')"
)
END_HEART = (
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
    "WHERE datname = current_database() AND application_name = 'runfold heart'"
)


async def limited(connection: asyncpg.Connection[asyncpg.Record], url: str, limit: int) -> None:
    """Let a login have so many connections."""
    await connection.execute(f"ALTER ROLE {login_of(url)} CONNECTION LIMIT {limit}")


@pytest.mark.slow
async def test_runs_make_progress_when_the_login_has_one_connection_beside_the_pool(
    ledger: Ledger, database: str, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    runs = [await ledger.submit("steps") for _ in range(20)]
    async with with_login(database, "runfold_worker", rights=("read", "work")) as url:
        await limited(connection, url, 11)
        with worker(url, "--concurrency", "10", settings=LONG):
            for run in runs:
                await ended(ledger, run)

    for run in runs:
        await assert_story(ledger, run)
        assert (await ledger.get(run.run_id)).attempt_count == 1


async def test_a_worker_whose_heart_has_no_connection_claims_nothing_and_says_what_it_lacks(
    ledger: Ledger, database: str, connection: asyncpg.Connection[asyncpg.Record], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    run = await ledger.submit("double", 4)
    async with with_login(database, "runfold_worker", rights=("read", "work")) as url:
        await limited(connection, url, 1)
        with worker(url, log=log, settings=LONG):
            await until(lambda: said(log, names.HEARTBEAT_FAILED))
            assert (await ledger.get(run.run_id)).state == "pending"
            assert "RUNFOLD_POOL_SIZE and two more" in said(log, names.HEARTBEAT_FAILED)[0]["then"]

            await limited(connection, url, 12)
            assert (await ended(ledger, run)).output == 8
            await until(lambda: said(log, names.BEATS_AGAIN))
            assert len(said(log, names.HEARTBEAT_FAILED)) == len(said(log, names.BEATS_AGAIN)) == 1


async def test_a_pool_gives_the_heart_a_place_when_others_have_taken_its_own(
    ledger: Ledger, database: str, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    @handler("pay")
    async def pay(_: Context) -> str:
        return "paid"

    async with with_login(database, "runfold_worker", rights=("read", "work", "submit")) as url:
        await limited(connection, url, 12)
        async with Ledger.open(url, PROJECT) as theirs, working(theirs, pay):
            await until(lambda: connection.fetchval(BESIDE_THE_POOL, login_of(url)))
            async with AsyncExitStack() as stack:  # as ten runs that write at once would
                for _ in range(10):
                    await stack.enter_async_context(theirs.pool.acquire())
            await limited(connection, url, 11)
            with capture_logs() as logs:
                await connection.execute(END_HEART)
                await until(lambda: any(line["event"] == names.BEATS_AGAIN for line in logs))
            for _ in range(20):  # with the connections that there are
                assert await theirs.pool.fetchval("SELECT 1") == 1
            assert (await ended(ledger, await ledger.submit("pay"))).output == "paid"
            # Two places may be given: the server counts a closed connection until it has ended.
            await until(lambda: connection.fetchval(BESIDE_THE_POOL, login_of(url)))


async def test_several_workers_share_a_limit_that_is_too_low_for_all_of_them(
    ledger: Ledger, database: str, connection: asyncpg.Connection[asyncpg.Record], tmp_path: Path
) -> None:
    logs = [tmp_path / f"log{number}" for number in range(3)]
    async with with_login(database, "runfold_worker", rights=("read", "work")) as url:
        await limited(connection, url, 7)
        with ExitStack() as stack:
            for log in logs:
                stack.enter_context(worker(url, "--concurrency", "4", log=log, settings=LONG))
            # Three workers need nine: which two go without is a matter of who connects first.
            lacks = (names.WAITING_FOR_DATABASE, names.HEARTBEAT_FAILED, names.WAKE_UPS_LOST)
            await until(lambda: any(said(log, name) for log in logs for name in lacks))
            runs = [await ledger.submit("steps") for _ in range(12)]
            for run in runs:
                await ended(ledger, run)

    for run in runs:
        await assert_story(ledger, run)
        assert (await ledger.get(run.run_id)).attempt_count == 1
