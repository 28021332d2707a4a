"""A server that accepts and never answers: nothing waits for it without a bound."""

from __future__ import annotations

import asyncio

import psutil  # type: ignore[import-untyped]
import pytest

from runfold import Ledger
from tests.conftest import PROJECT
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
