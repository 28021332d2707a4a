"""A pooler in transaction mode, where every statement may meet another server connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from runfold.ledger import Ledger, State, names
from runfold.ledger.errors import ConfigurationError
from runfold.ledger.postgres.schema import upgrade
from runfold.projections.state.replay import replay
from runfold.workers.duties.wakeup_listener import Wakeup
from tests.support import pgbouncer
from tests.support.console import Cli
from tests.support.databases import PROJECT
from tests.support.handlers import double
from tests.support.processes import assert_story, worker
from tests.support.waiting import BOUND, until
from tests.support.working import ended, reached, working

SETTINGS = {"RUNFOLD_PREPARED_STATEMENTS": "false", "RUNFOLD_LISTEN": "false"}
RUNS = 30

pytestmark = pytest.mark.skipif(
    pgbouncer.PROGRAM is None, reason="needs Debian's package pgbouncer"
)

PULSED = """
SELECT count(*) > 0 FROM pg_stat_activity
WHERE application_name = 'runfold-wakeup' AND datname = current_database() AND query = 'SELECT 1'
"""


@pytest.fixture
def pooler(database: str) -> Iterator[str]:
    """The database's URL through a pooler in transaction mode."""
    with pgbouncer.pooled(database) as url:
        yield url


@pytest.fixture
async def pooled(pooler: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ledger]:
    """The ledger through the pooler, set up as the documents say."""
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    async with Ledger.open(pooler, PROJECT) as opened:
        yield opened


@pytest.mark.slow
async def test_runs_are_submitted_worked_on_approved_and_completed_through_it(
    pooled: Ledger, pooler: str
) -> None:
    with worker(pooler, "--concurrency", str(RUNS), settings=SETTINGS):
        asked = await pooled.submit("ask", "fly")
        runs = [await pooled.submit("steps", key=f"k-{number}") for number in range(RUNS)]
        await reached(pooled, asked, State.WAITING_APPROVAL)
        await pooled.approve(await pooled.get(asked.run_id), actor="ann")
        for run in runs:
            await ended(pooled, run)
        assert (await ended(pooled, asked)).output == "ann: fly"

    for run in runs:
        await assert_story(pooled, run)
    assert (await pooled.submit("steps", key="k-3")).run_id == runs[3].run_id
    assert (await pooled.verify()).ok


async def test_every_call_goes_through_it_at_once(pooled: Ledger) -> None:
    async def life(number: int) -> None:
        run = await pooled.submit("parse", number)
        [lease] = await pooled.claim(f"w:{number}")
        [lease] = await pooled.heartbeat([lease])
        await pooled.transition(lease, State.COMPLETED, output=number)
        assert len(await pooled.history(lease.run_id)) == 4
        assert (await pooled.state_at(lease.run_id, 1)).state == State.PENDING
        await pooled.get(run.run_id)

    await asyncio.gather(*(life(number) for number in range(RUNS)))
    assert len(await pooled.runs(state=State.COMPLETED)) == RUNS


async def test_without_the_setting_the_error_names_it(pooler: str) -> None:
    async def submits() -> None:
        async with Ledger.open(pooler, PROJECT) as ledger:
            while True:
                await asyncio.gather(*(ledger.submit("parse", number) for number in range(20)))

    with pytest.raises(ConfigurationError, match="RUNFOLD_PREPARED_STATEMENTS"):
        await submits()


async def test_what_needs_a_session_is_refused(pooled: Ledger, pooler: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="give the URL of the server"):
        await upgrade(pooler)
    with pytest.raises(ConfigurationError, match="give the URL of the server"):
        await pooled.archive.export("2026-01", tmp_path)
    with pytest.raises(ConfigurationError, match="give the URL of the server"):
        await replay(pooled, actor="ann", reason="a test")
    assert await pooled.pool.fetchval("SELECT count(*) FROM ledger.at_work") == 0


async def test_a_rebase_prepares_no_statement_where_that_is_set(
    pooled: Ledger, pooler: str, capsys: pytest.CaptureFixture[str]
) -> None:
    await asyncio.to_thread(Cli(pooler, capsys).ok, "projections", "rebase")

    async with (
        pooled.pool.acquire() as one, one.transaction(),
        pooled.pool.acquire() as other, other.transaction(),
    ):  # fmt: skip
        for connection in (one, other):
            assert await connection.fetch("SELECT name FROM pg_prepared_statements") == []


async def test_a_worker_that_listens_in_vain_says_so_and_polls(
    pooled: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    listening = asyncio.create_task(Wakeup(pooled, lambda: None, pulse=0.3).run())
    said = ""

    def deaf() -> bool:
        nonlocal said
        said += capsys.readouterr().err
        return names.WAKE_UPS_DEAF in said

    async with working(pooled, double, listen=False):
        await until(deaf)
        assert (await ended(pooled, await pooled.submit("double", 4))).output == 8
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


@pytest.mark.slow
async def test_a_worker_that_hears_its_wake_ups_does_not_complain(
    ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    heard = asyncio.Event()
    listening = asyncio.create_task(Wakeup(ledger, heard.set, pulse=4).run())
    await asyncio.wait_for(heard.wait(), BOUND)
    await until(lambda: ledger.pool.fetchval(PULSED))  # by then it has heard of itself, or is deaf
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)

    assert names.WAKE_UPS_DEAF not in capsys.readouterr().err
