"""Logins with few connections: the heart has its own before anything is claimed, and keeps it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from runfold.ledger import Ledger, names
from tests.support.logins import with_login
from tests.support.processes import assert_story, said, worker
from tests.support.waiting import until
from tests.support.working import ended


async def limited(connection: asyncpg.Connection[asyncpg.Record], url: str, limit: int) -> None:
    """Let a login have so many connections."""
    await connection.execute(f"ALTER ROLE {urlsplit(url).username} CONNECTION LIMIT {limit}")


async def test_runs_make_progress_when_the_login_has_one_connection_beside_the_pool(
    ledger: Ledger, database: str, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    runs = [await ledger.submit("steps") for _ in range(20)]
    async with with_login(database, "runfold_worker", rights=("read", "work")) as url:
        await limited(connection, url, 11)
        with worker(url, "--concurrency", "10"):
            for run in runs:
                await ended(ledger, run, 60)

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
        with worker(url, log=log):
            await until(lambda: said(log, names.HEARTBEAT_FAILED), 20)
            assert (await ledger.get(run.run_id)).state == "pending"
            assert "RUNFOLD_POOL_SIZE and two more" in said(log, names.HEARTBEAT_FAILED)[0]["then"]

            await limited(connection, url, 12)
            assert (await ended(ledger, run, 20)).output == 8
            assert len(said(log, names.HEARTBEAT_FAILED)) == len(said(log, names.BEATS_AGAIN)) == 1
