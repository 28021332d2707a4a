"""Worker processes whose server restarts, stays away, or takes no writes for a while."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import asyncpg
import pytest

from runfold.ledger import Ledger, Submission, names
from runfold.ledger.errors import DatabaseUnavailable
from runfold.ledger.postgres.embedded.postgres import EmbeddedPostgres
from tests.support.databases import assert_consistent
from tests.support.processes import assert_story, said, worker
from tests.support.runs import types
from tests.support.waiting import until
from tests.support.working import ended

TTL = 4.0
"""Seconds: more than a busy machine holds up a process."""
LEASES = {"RUNFOLD_LEASE_TTL_SECONDS": f"{TTL}"}
RUNS = 8


async def steps_begun(ledger: Ledger, gate: Path) -> list[Submission]:
    """Submit runs that wait for a file, and return once workers have recorded a step."""
    runs = await ledger.submit_many([{"kind": "gated", "input": str(gate)}] * RUNS)
    await until(
        lambda: ledger.pool.fetchval(
            "SELECT count(*) > 0 FROM ledger.event WHERE type = 'step.completed'"
        ),
    )
    return runs


async def all_whole(ledger: Ledger, runs: list[Submission]) -> list[str]:
    """Wait for the end of every run and check its story; return the types of all events."""
    found = []
    for run in runs:
        await ended(ledger, run.run_id)
        await assert_story(ledger, run)
        found += await types(ledger, run.run_id)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("away", [0, 2 * TTL], ids=["restart", "long"])
async def test_after_a_downtime_the_work_goes_on_and_nobody_is_reaped(
    own_server: EmbeddedPostgres, own_ledger: Ledger, tmp_path: Path, away: float
) -> None:
    gate = tmp_path / "gate"
    log = tmp_path / "log"  # of both workers: either may have taken all
    with (
        worker(own_server.url(), log=log, settings=LEASES),
        worker(own_server.url(), log=log, settings=LEASES),
        worker(own_server.url(), name="reap", settings=LEASES),
    ):
        runs = await steps_begun(own_ledger, gate)
        await asyncio.to_thread(own_server.close)
        await until(lambda: said(log, names.HEARTBEAT_FAILED))
        gate.touch()
        if away:
            await until(lambda: said(log, names.LEASE_IN_DOUBT))
            await asyncio.sleep(away)  # the downtime itself
        await asyncio.to_thread(own_server.start)
        happened = await all_whole(own_ledger, runs)

    assert "lease.expired" not in happened
    assert {(await own_ledger.get(run.run_id)).attempt_count for run in runs} == {1}
    await assert_consistent(own_server.url())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["runfold", "runfold heart", "runfold-wakeup"])
async def test_any_connection_of_a_worker_may_be_terminated(
    ledger: Ledger,
    database: str,
    connection: asyncpg.Connection[asyncpg.Record],
    tmp_path: Path,
    name: str,
) -> None:
    gate = tmp_path / "gate"
    mine = [await ledger.pool.fetchval("SELECT pg_backend_pid()"), connection.get_server_pid()]
    with worker(database, settings=LEASES):
        runs = await steps_begun(ledger, gate)
        for _ in range(3):
            await until(lambda: connection.fetchval(_TERMINATE_ONE, name, mine))
        gate.touch()
        happened = await all_whole(ledger, runs)

    assert "lease.expired" not in happened


_TERMINATE_ONE = """
SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = $1 AND pid <> ALL ($2::int[])
  ORDER BY backend_start LIMIT 1
"""


@pytest.mark.slow
async def test_a_database_that_takes_no_writes_is_waited_for_and_nobody_is_reaped(
    own_server: EmbeddedPostgres, own_ledger: Ledger, tmp_path: Path
) -> None:
    log, gate = tmp_path / "log", tmp_path / "gate"
    admin = await asyncpg.connect(own_server.url())

    async def read_only(setting: str) -> None:
        await admin.execute("SET default_transaction_read_only = off")
        await admin.execute(f"ALTER SYSTEM SET default_transaction_read_only = {setting}")
        await admin.execute("SELECT pg_reload_conf()")

    with (
        worker(own_server.url(), log=log, settings=LEASES),
        worker(own_server.url(), name="reap", log=tmp_path / "reaper", settings=LEASES),
    ):
        runs = await steps_begun(own_ledger, gate)
        await read_only("on")
        await until(partial(_is_read_only, own_ledger))  # each connection reads it on its own
        await until(lambda: said(log, names.LEASE_IN_DOUBT))
        gate.touch()
        await until(lambda: said(tmp_path / "reaper", names.REAPER_INTERRUPTED))
        await asyncio.sleep(2 * TTL)  # so long that whoever counts it as time to beat in would reap
        await read_only("off")
        happened = await all_whole(own_ledger, runs)
    await admin.close()

    assert "lease.expired" not in happened
    await assert_consistent(own_server.url())


async def _is_read_only(ledger: Ledger) -> bool:
    """Whether a submit is refused because the database takes no writes."""
    try:
        await ledger.submit("steps")
    except DatabaseUnavailable as error:
        return "read-only" in str(error)
    return False
