"""A server that accepts and never answers: nothing waits for it without a bound."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from functools import partial

import psutil  # type: ignore[import-untyped]
import pytest

from runfold import Ledger, Run, Worker
from runfold.ledger.errors import DatabaseUnavailable
from tests.support.databases import PROJECT
from tests.support.handlers import double
from tests.support.proxy import proxied
from tests.support.server import Server
from tests.support.waiting import BOUND, until
from tests.support.working import ended


@pytest.fixture
def local(server: Server) -> None:
    """Skip where the server's processes are not this machine's."""
    if server.name.startswith("docker"):
        pytest.skip("the server's processes are in a container")


@pytest.mark.slow
@pytest.mark.usefixtures("local")
async def test_a_ledger_closes_although_its_server_has_fallen_silent(database: str) -> None:
    opening = Ledger.open(database, PROJECT)
    ledger = await opening.__aenter__()
    pids = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
    backends = [psutil.Process(row["pid"]) for row in await ledger.pool.fetch(pids)]
    for backend in backends:
        backend.suspend()
    try:
        ledger.project.waker.wake()
        async with asyncio.timeout(BOUND):
            await opening.__aexit__(None, None, None)
    finally:
        for backend in backends:
            backend.resume()


@pytest.mark.slow
async def test_a_server_that_is_silent_from_the_connection_on_is_named_with_its_bound() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://me@127.0.0.1:{silent.getsockname()[1]}/runs?connect_timeout=2"
        with pytest.raises(DatabaseUnavailable, match=r"no answer within 2 s.*connect_timeout"):
            async with Ledger.open(url, PROJECT):
                pass


@pytest.mark.slow
async def test_a_call_of_a_silent_server_ends_with_the_statements_deadline(
    ledger: Ledger, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNFOLD_STATEMENT_SECONDS", "0.5")
    run = await ledger.submit("parse")
    async with proxied(database) as proxy, Ledger.open(proxy.url, PROJECT) as distant:
        await until(partial(_answers, distant, run))
        proxy.swallow()
        async with asyncio.timeout(BOUND):
            with pytest.raises(DatabaseUnavailable, match="no answer in time"):
                await distant.get(run.run_id)
            with pytest.raises(DatabaseUnavailable):
                await distant.submit("parse")


async def _answers(distant: Ledger, run: Run) -> bool:
    """Whether a ledger has an answer before its deadline, which is short."""
    with suppress(DatabaseUnavailable):
        return await distant.get(run.run_id) == run
    return False


@pytest.mark.slow
@pytest.mark.parametrize("signals", [1, 2])
async def test_a_worker_in_a_program_ends_although_its_claim_is_never_answered(
    ledger: Ledger, database: str, signals: int
) -> None:
    async with proxied(database) as proxy, Ledger.open(proxy.url, PROJECT) as distant:
        worker = Worker(distant, [double], grace=1, poll=0.01, reap=False, schedule=False)
        working = asyncio.create_task(worker.run())
        await ended(ledger, await ledger.submit("double", 4))
        proxy.swallow()
        await until(lambda: proxy.swallowed)  # a claim, or the answer to one
        for _ in range(signals):
            worker.stop()
        async with asyncio.timeout(BOUND):
            await working
