"""A real PostgreSQL for every test: a database like a new one, verified when the test ends."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from functools import cache

import asyncpg
import pytest
import structlog
import typer.main

from runfold.ledger import Ledger
from runfold.ledger.postgres import schema
from runfold.ledger.settings import Settings
from tests.support.databases import PROJECT, copy_of, execute, with_database
from tests.support.keeping import KEEPER, end_tasks
from tests.support.recycling import RecycledDatabase, Recycling
from tests.support.server import Server, postgres_server

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


@pytest.fixture(autouse=True)
def _no_task_outlives_its_test(request: pytest.FixtureRequest) -> None:
    """End what a test leaves, as the end of its loop would: one loop serves all tests."""
    if inspect.iscoroutinefunction(request.function):
        request.getfixturevalue("_tasks")


@pytest.fixture
async def _tasks() -> AsyncIterator[None]:
    yield
    await end_tasks()


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
def runfold_server(server: Server) -> str:
    """The server of the plugin's fixtures, else one of their own beside that of the tests."""
    return server.url


@pytest.fixture(scope="session")
def maintenance(server: Server) -> Iterator[Callable[[str], None]]:
    """Run statements on a connection that stays open: many tests make and drop a database."""
    with asyncio.Runner() as runner:

        async def connected() -> asyncpg.Connection:
            return await asyncpg.connect(server.url)

        connection = runner.run(connected())

        async def run(statement: str) -> None:
            await connection.execute(statement)

        yield lambda statement: runner.run(run(statement))
        runner.run(connection.close())


@pytest.fixture(scope="session")
def template(server: Server) -> Iterator[str]:
    """The name of a migrated database with an empty project, to be copied."""
    name = f"template_{uuid.uuid4().hex[:12]}"
    asyncio.run(_make_template(server.url, name))
    yield name
    asyncio.run(execute(server.url, f"DROP DATABASE {name} WITH (FORCE)"))


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


@pytest.fixture(scope="session")
async def recycling(server: Server, template: str) -> AsyncIterator[Recycling]:
    """What lends this process's database to one test after another."""
    opened = Recycling(server.url, template)
    yield opened
    await opened.drop()


@pytest.fixture
async def recycled(
    recycling: Recycling, request: pytest.FixtureRequest
) -> AsyncIterator[RecycledDatabase]:
    """A database like a new one, with its connections; it must verify after the test."""
    if request.node.get_closest_marker("new_database"):
        await recycling.drop()
    lent = await recycling.lend()
    yield lent
    await end_tasks()
    await recycling.take_back(lent)


@pytest.fixture
def database(recycled: RecycledDatabase) -> str:
    """The URL of a migrated database, whose ledger must be consistent after the test."""
    return recycled.url


@pytest.fixture
async def ledger(recycled: RecycledDatabase) -> AsyncIterator[Ledger]:
    """The ledger of the project `test`."""
    opened = recycled.ledger()
    yield opened
    await opened.project.waker.flush()


@pytest.fixture
async def connection(recycled: RecycledDatabase) -> asyncpg.Connection:
    """A connection of its own to the test's database."""
    return await recycled.connection()


def _database(server: Server, execute: Callable[[str], None], template: str) -> Iterator[str]:
    name, make, drop = copy_of(template)
    execute(make)
    url = with_database(server.url, name)
    with KEEPER.connections(url):
        yield url
    execute(drop)


async def _make_template(url: str, name: str) -> None:
    """Make and migrate a database; one process at a time, as the server's roles are shared."""
    lock = await asyncpg.connect(url)
    try:
        await lock.execute("SELECT pg_advisory_lock(hashtextextended('runfold tests', 0))")
        await lock.execute(f"CREATE DATABASE {name}")
        await schema.upgrade(with_database(url, name))
        insert = f"INSERT INTO ledger.project VALUES ('{PROJECT}')"
        await execute(with_database(url, name), insert)
    finally:
        await lock.close()
