"""Events restored into another cluster, where transaction ids mean something else."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from runfold.ledger import Ledger
from runfold.ledger.errors import FeedMoved
from runfold.ledger.events import NoteAdded
from runfold.ledger.postgres import schema
from runfold.ledger.postgres.embedded.postgres import temporary_postgres
from runfold.ledger.postgres.embedded.programs import find_programs
from runfold.ledger.postgres.urls import driver_url
from runfold.ledger.reading import feed
from tests.ledger.reading.test_feed import note
from tests.support.databases import PROJECT, assert_consistent
from tests.support.feeding import Reader, assert_complete, stored
from tests.support.server import ROOM, Server
from tests.support.server_folder import server_folder
from tests.support.waiting import until

BURN = "DO $$ BEGIN FOR i IN 1..20000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$"

WAITING = """
SELECT count(*) = $1 FROM pg_stat_activity
WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0
"""


@pytest.fixture(scope="module")
def other_cluster() -> Iterator[str]:
    """The URL of a cluster of its own, with the ledger's roles."""
    with temporary_postgres(ROOM, server_folder()) as postgres:
        asyncio.run(schema.upgrade(postgres.url()))
        yield postgres.url()


@pytest.fixture
def embedded(server: Server) -> None:
    """Skip where the server's programs are not at hand."""
    if not server.name.startswith("embedded"):
        pytest.skip("needs the programs of the embedded server")


def program(name: str, url: str, *words: str, given: bytes | None = None) -> bytes:
    """Run a program of PostgreSQL on a database."""
    parts = urlsplit(url)
    host = parse_qs(parts.query)["host"][0]
    where = ["-h", host, "-p", "5432", "-U", "postgres", "-d", parts.path.lstrip("/")]
    return subprocess.run(
        [find_programs() / name, *where, *words], check=True, capture_output=True, input=given
    ).stdout


async def restored(source: str, cluster: str, name: str) -> str:
    """Dump a database and restore it into another cluster; give its URL there."""
    maintenance = await asyncpg.connect(cluster)
    await maintenance.execute(f"DROP DATABASE IF EXISTS {name}")
    await maintenance.execute(f"CREATE DATABASE {name}")
    await maintenance.close()
    target = cluster.replace("/postgres?", f"/{name}?")
    text = await asyncio.to_thread(program, "pg_dump", source)
    await asyncio.to_thread(program, "psql", target, "-q", "-v", "ON_ERROR_STOP=1", given=text)
    return target


@pytest.fixture
async def readers(ledger: Ledger, connection: asyncpg.Connection[Any]) -> list[Reader]:
    """Readers at points of a history: at none, amid a page, before a late commit, at the end."""
    runs = [one.run_id for one in await ledger.submit_many([{"kind": "parse"}] * 10)]
    fresh, amid, before_late, done = (Reader(ledger.pool, limit) for limit in (3, 4, 100, 100))
    assert await amid.page()
    assert amid.checkpoint.target is not None
    async with connection.transaction():
        await note(connection, *runs[:3])
        await ledger.append(runs[5], NoteAdded(text="meanwhile"), actor="ann")
        await before_late.drain()
    await done.drain()
    return [fresh, amid, before_late, done]


@pytest.mark.slow
@pytest.mark.usefixtures("embedded")
@pytest.mark.parametrize("ids", ["lower", "higher"])
async def test_a_feed_restored_into_a_cluster_is_refused_until_it_is_rebased_and_then_loses_nothing(
    ledger: Ledger, database: str, readers: list[Reader], other_cluster: str, ids: str
) -> None:
    newer = ids == "higher"
    burning = await asyncpg.connect(driver_url(other_cluster if newer else database))
    await burning.execute(BURN)
    await burning.close()
    if not newer:  # events whose ids the other cluster will not reach for long
        run = await ledger.submit("parse")
        for reader in readers[2:]:
            await reader.drain()
        await ledger.append(run.run_id, NoteAdded(text="after the last page"), actor="ann")
    target = await restored(database, other_cluster, f"restored_{ids}")

    async with Ledger.open(target, PROJECT) as there:
        await there.submit("before the rebase")
        for reader in readers:
            reader.source = there.pool
        with pytest.raises(FeedMoved, match="runfold projections rebase"):
            await readers[-1].drain()
        with pytest.raises(FeedMoved):
            await feed.now(there.pool)

        assert await there.pool.fetchval("SELECT ledger.feed_rebase()") == 2
        last = await there.submit("after the rebase")
        for reader in readers:
            await reader.drain()
        await there.append(last.run_id, NoteAdded(text="live"), actor="ann")
        for reader in readers:
            await reader.drain()
            assert_complete(reader, await stored(there.pool))
        started_here = await feed.now(there.pool)
        assert started_here.generation == 2
        assert await feed.towards(there.pool, started_here, 10) is None
    await assert_consistent(target)


async def test_a_rebase_waits_for_writers_at_work(
    ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    run = (await ledger.submit("parse")).run_id
    reader = Reader(ledger.pool)
    await reader.drain()
    async with connection.transaction():
        await note(connection, run)
        rebasing = asyncio.create_task(ledger.pool.fetchval("SELECT ledger.feed_rebase()"))
        await until(lambda: ledger.pool.fetchval(WAITING, 1))
        writing = asyncio.create_task(ledger.submit("has its transaction id, and waits, too"))
        await until(lambda: ledger.pool.fetchval(WAITING, 2))
        await reader.drain()
        assert len(reader.keys) == 1
    await asyncio.gather(rebasing, writing)
    await reader.drain()

    assert_complete(reader, await stored(ledger.pool))
    assert reader.checkpoint.generation == 2


@pytest.mark.usefixtures("embedded")
async def test_a_copy_of_the_database_in_the_same_cluster_reads_on(
    ledger: Ledger, server: Server, database: str
) -> None:
    await ledger.submit_many([{"kind": "parse"}] * 10)
    reader = Reader(ledger.pool)
    await reader.drain()
    await ledger.submit("last")
    target = await restored(database, server.url, "restored_here")

    async with Ledger.open(target, PROJECT) as there:
        await there.submit("new")
        reader.source = there.pool
        await reader.drain()
        assert_complete(reader, await stored(there.pool))


async def test_a_rebase_of_an_empty_ledger_loses_nothing(ledger: Ledger) -> None:
    await ledger.pool.fetchval("SELECT ledger.feed_rebase()")
    reader = Reader(ledger.pool)
    await ledger.submit("first")
    await reader.drain()

    assert_complete(reader, await stored(ledger.pool))


async def test_a_rebase_brings_a_sequence_that_stayed_behind_up_to_the_events(
    ledger: Ledger,
) -> None:
    """Logical replication copies events and leaves sequences as they were made."""
    await ledger.submit_many([{"kind": "parse"}] * 40)
    await ledger.pool.execute("ALTER SEQUENCE ledger.event_position RESTART")
    reader = Reader(ledger.pool, 7)

    await ledger.pool.fetchval("SELECT ledger.feed_rebase()")
    await ledger.submit_many([{"kind": "parse"}] * 35)
    await reader.drain()

    assert_complete(reader, await stored(ledger.pool))
    assert len(reader.keys) == 75
