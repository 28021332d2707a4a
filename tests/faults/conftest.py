"""A server of a test's own, which it may stop."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from runfold.ledger import Ledger
from runfold.ledger.postgres import schema
from runfold.ledger.postgres.embedded.registry import EmbeddedPostgres
from tests.conftest import PROJECT


@pytest.fixture
def own_server() -> Iterator[EmbeddedPostgres]:
    """A durable server of the test's own."""
    # Below /tmp and open: a socket's path must stay short, and the server's user must reach it.
    folder = Path(tempfile.mkdtemp(prefix="runfold-fault-", dir="/tmp"))
    folder.chmod(0o755)
    server = EmbeddedPostgres(folder / "home")
    try:
        yield server.start()
    finally:
        server.close()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def own_ledger(own_server: EmbeddedPostgres) -> AsyncIterator[Ledger]:
    """A ledger on the server that the test will stop."""
    await schema.upgrade(own_server.url())
    async with Ledger.open(own_server.url(), PROJECT, create_project=True) as opened:
        yield opened
