"""A real PostgreSQL for every test: a server a session, a database a test, verified at the end."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
import structlog
import typer.main

from runfold.ledger import Ledger
from runfold.ledger.postgres import schema
from runfold.ledger.postgres.urls import driver_url
from runfold.ledger.reading.verify import verify
from runfold.ledger.settings import Settings
from tests.support.server import Server, postgres_server

PROJECT = "test"
FIRST_OWN_TYPE = 16_384
"""FirstNormalObjectId of PostgreSQL's access/transam.h."""
VERIFIED = pytest.StashKey[bool]()
pytest_plugins = ["tests.support.collection"]


def pytest_configure() -> None:
    """Let the processes that tests start hear signals and begin soon, whatever is inherited.

    A session in the background ignores the signals; and where bytecode is not written, each process
    would compile all that it imports.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the developer's own settings reaches a test."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"RUNFOLD_{name.upper()}", raising=False)
    structlog.reset_defaults()  # which a program that ran in this process may have set


@pytest.fixture(scope="session", autouse=True)
def _known_types() -> Iterator[None]:
    """Ask a server once about arrays of built-in types: the driver asks anew in each connection.

    That takes 4 ms, three times in a worker's connection. The numbers of built-in types are fixed.
    """
    ask = vars(asyncpg.Connection)["_introspect_types"]
    known: dict[frozenset[int], Any] = {}

    async def introspect(self: asyncpg.Connection, types: Any, within: float | None) -> Any:
        wanted = frozenset(types)
        if max(wanted) >= FIRST_OWN_TYPE:
            return await ask(self, types, within)
        if wanted not in known:
            known[wanted], _ = await ask(self, types, within)
        return known[wanted], SimpleNamespace(name="known")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(asyncpg.Connection, "_introspect_types", introspect)
        yield


@pytest.fixture(scope="session", autouse=True)
def _known_commands() -> Iterator[None]:
    """Make each command of the program once: a process of a user's makes one, a test hundreds."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(typer.main, "get_command", cache(typer.main.get_command))
        yield


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The server that RUNFOLD_TEST_POSTGRES names."""
    with postgres_server() as started:
        yield started


@pytest.fixture(scope="session")
def maintenance(server: Server) -> Iterator[Callable[[str], None]]:
    """Run statements on a connection that stays open: every test makes and drops a database."""
    with asyncio.Runner() as runner:

        async def connected() -> asyncpg.Connection:
            return await asyncpg.connect(server.url)

        connection = runner.run(connected())

        async def execute(statement: str) -> None:
            await connection.execute(statement)

        yield lambda statement: runner.run(execute(statement))
        runner.run(connection.close())


@pytest.fixture(scope="session")
def template(server: Server) -> Iterator[str]:
    """The name of a migrated database with an empty project, to be copied."""
    name = f"template_{uuid.uuid4().hex[:12]}"
    asyncio.run(_make_template(server.url, name))
    if server.name == "embedded":
        _lighten(Path(asyncio.run(_folder_of(server.url, name))))
    yield name
    asyncio.run(_execute(server.url, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def empty_database(server: Server, maintenance: Callable[[str], None]) -> Iterator[str]:
    """The URL of a database with nothing in it."""
    yield from _database(server, maintenance, "template0")


@pytest.fixture
def unverified_database(
    server: Server, maintenance: Callable[[str], None], template: str
) -> Iterator[str]:
    """The URL of a migrated database that the test will damage."""
    yield from _database(server, maintenance, template)


@pytest.fixture
def database(unverified_database: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a migrated database, whose ledger must be consistent after the test."""
    yield unverified_database
    if VERIFIED not in request.node.stash:
        asyncio.run(assert_consistent(unverified_database))


@pytest.fixture
async def ledger(database: str, request: pytest.FixtureRequest) -> AsyncIterator[Ledger]:
    """The ledger of the project `test`, verified by its own sessions, which know the tables."""
    async with Ledger.open(database, PROJECT) as opened:
        yield opened
        await _assert_consistent(opened.pool)
        request.node.stash[VERIFIED] = True


@pytest.fixture
async def connection(database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection of its own to the test's database."""
    opened = await asyncpg.connect(driver_url(database))
    yield opened
    await opened.close()


async def assert_consistent(url: str) -> None:
    """Fail unless every project of the database verifies."""
    async with asyncpg.create_pool(driver_url(url), min_size=1, max_size=1, reset=_keep) as pool:
        await _assert_consistent(pool)


async def _assert_consistent(pool: asyncpg.Pool) -> None:
    for row in await pool.fetch("SELECT project_id FROM ledger.project"):
        report = await verify(pool, row["project_id"])
        assert not report.findings


async def _keep(_: object) -> None:
    """Leave a connection as it is, as the ledger's own pool does."""


def with_database(url: str, name: str) -> str:
    """Point a URL at another database of the same server."""
    parts = urlsplit(url)
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc}/{name}{query}"


def _database(server: Server, execute: Callable[[str], None], template: str) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    yield with_database(server.url, name)
    execute(f"DROP DATABASE {name} WITH (FORCE)")


async def _make_template(url: str, name: str) -> None:
    """Make and migrate a database; one process at a time, as the server's roles are shared."""
    lock = await asyncpg.connect(url)
    try:
        await lock.execute("SELECT pg_advisory_lock(hashtextextended('runfold tests', 0))")
        await lock.execute(f"CREATE DATABASE {name}")
        await schema.upgrade(with_database(url, name))
        insert = f"INSERT INTO ledger.project VALUES ('{PROJECT}')"
        await _execute(with_database(url, name), insert)
    finally:
        await lock.close()


async def _folder_of(url: str, name: str) -> str:
    """Return the folder of a database, once all of it is written there."""
    opened = await asyncpg.connect(url)
    try:
        await opened.execute("CHECKPOINT")
        folder: str = await opened.fetchval(
            "SELECT current_setting('data_directory') || '/base/' || oid FROM pg_database"
            " WHERE datname = $1",
            name,
        )
        return folder
    finally:
        await opened.close()


def _lighten(folder: Path) -> None:
    """Delete a database's maps of free and of visible pages, which no table needs to have.

    They are 77 files of 496, and a fifth of the time of a copy.
    """
    for kind in ("fsm", "vm"):
        for file in folder.glob(f"*_{kind}"):
            file.unlink()


async def _execute(url: str, statement: str) -> None:
    opened = await asyncpg.connect(url)
    try:
        await opened.execute(statement)
    finally:
        await opened.close()
