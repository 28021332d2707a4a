"""A server that accepts and never answers: nothing waits for it without a bound."""

from __future__ import annotations

import asyncio

import psutil  # type: ignore[import-untyped]
import pytest

from runfold import Ledger
from runfold.ledger.errors import DatabaseUnavailable
from tests.conftest import PROJECT
from tests.support.proxy import proxied
from tests.support.server import Server

BOUND = 20.0
"""Seconds: two for the last wake-up, five for the pool, and a slow machine."""


@pytest.fixture
def local(server: Server) -> None:
    """Skip where the server's processes are not this machine's."""
    if server.name.startswith("docker"):
        pytest.skip("the server's processes are in a container")


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


async def test_a_call_of_a_silent_server_ends_with_the_statements_deadline(
    ledger: Ledger, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNFOLD_STATEMENT_SECONDS", "0.5")
    run = await ledger.submit("parse")
    async with proxied(database) as proxy, Ledger.open(proxy.url, PROJECT) as distant:
        assert (await distant.get(run.run_id)).run_id == run.run_id
        proxy.swallow()
        async with asyncio.timeout(BOUND):
            with pytest.raises(DatabaseUnavailable):
                await distant.get(run.run_id)
            with pytest.raises(DatabaseUnavailable):
                await distant.submit("parse")
