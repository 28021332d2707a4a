"""A server of a test's own, which it may stop."""

from __future__ import annotations

import asyncio
import fcntl
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from runfold.ledger import Ledger
from runfold.ledger.postgres import schema
from runfold.ledger.postgres.embedded.postgres import EmbeddedPostgres
from tests.support.databases import PROJECT
from tests.support.server_folder import open_folder


@pytest.fixture(scope="session")
def made_store(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """The folder of a migrated server with an empty project, made by one process of the session."""
    session = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):  # set by xdist: each process has a folder in it
        session = session.parent
    made = session / "store"
    with (session / "store.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            with open_folder() as folder:
                with EmbeddedPostgres(folder / "home") as server:
                    asyncio.run(_migrate(server.url()))
                _copy(folder / "home", session / "store.new")
            (session / "store.new").rename(made)
    return made


@pytest.fixture
def own_server(made_store: Path) -> Iterator[EmbeddedPostgres]:
    """A durable server of the test's own, with a migrated database."""
    with open_folder() as folder:
        _copy(made_store, folder / "home")
        with EmbeddedPostgres(folder / "home") as server:
            yield server


@pytest.fixture
async def own_ledger(own_server: EmbeddedPostgres) -> AsyncIterator[Ledger]:
    """A ledger on the server that the test will stop."""
    async with Ledger.open(own_server.url(), PROJECT) as opened:
        yield opened


async def _migrate(url: str) -> None:
    await schema.upgrade(url)
    async with Ledger.open(url, PROJECT, create_project=True):
        pass


def _copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-a", source, target], check=True)
