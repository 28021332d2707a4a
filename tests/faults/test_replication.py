"""A move to another server by logical replication, as docs/howto/upgrade.md has it."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from runfold.console.cli.kit import exits
from runfold.ledger import Ledger, State
from runfold.ledger.postgres import schema, tables
from runfold.ledger.postgres.embedded.programs import find_programs
from runfold.ledger.postgres.embedded.registry import temporary_postgres
from runfold.ledger.postgres.urls import driver_url
from tests.conftest import PROJECT, assert_consistent
from tests.support.console import Cli
from tests.support.feeding import Reader, assert_complete, stored
from tests.support.place import place
from tests.support.processes import ROOT
from tests.support.runs import claimed
from tests.support.server import ROOM
from tests.support.waiting import until

LOGICAL = ROOM | {"wal_level": "logical", "wal_retrieve_retry_interval": "100ms"}
PAGE = (ROOT / "docs" / "howto" / "upgrade.md").read_text()
PUBLISH, SUBSCRIBE, END = re.findall(r"```postgresql\n(.*?)```", PAGE, re.DOTALL)
UNPUBLISHED = {
    "projection",
    "projection_skip",
    "projection_aside",
    "rebuild",
    "rebuild_range",
    "low_water",
    "at_work",
    "web_session",
}


@pytest.fixture
def old() -> Iterator[str]:
    """The server that is left."""
    with temporary_postgres(LOGICAL, place()) as postgres:
        asyncio.run(schema.upgrade(postgres.url()))
        yield postgres.url()


@pytest.fixture
def new() -> Iterator[str]:
    """The server that takes over."""
    with temporary_postgres(LOGICAL, place()) as postgres:
        yield postgres.url()


def prepare(old: str, new: str) -> None:
    """Give the new server the roles and the schema, by the commands of the page."""
    roles, schema_ = [line for line in PAGE.splitlines() if "| psql" in line]
    environment = {**os.environ, "OLD": libpq(old), "NEW": libpq(new), "LC_ALL": "C"}
    environment["PATH"] = f"{find_programs()}:{environment['PATH']}"
    for line, checks in ((roles, ""), (schema_, " -v ON_ERROR_STOP=1 -q")):  # postgres is there
        subprocess.run(["bash", "-ec", line + checks], env=environment, check=True)


@pytest.fixture
async def publisher(old: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(driver_url(old))
    yield connection
    await connection.close()


@pytest.fixture
async def subscriber(new: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(driver_url(new))
    yield connection
    await connection.close()


@pytest.fixture
async def replicated(
    old: str, new: str, publisher: asyncpg.Connection, subscriber: asyncpg.Connection
) -> AsyncIterator[Ledger]:
    """The ledger of the old server, filled before the new one subscribed, and replicated."""
    async with Ledger.open(old, PROJECT, create_project=True) as ledger:
        await filled(ledger, "before")
        await asyncio.to_thread(prepare, old, new)
        await publisher.execute(PUBLISH)
        await subscriber.execute(
            re.sub("CONNECTION '.*?'", f"CONNECTION '{libpq(old)}'", SUBSCRIBE)
        )
        yield ledger


def libpq(url: str) -> str:
    """Return a URL as the words of a connection."""
    parts = urlsplit(url)
    return (
        f"host={parse_qs(parts.query)['host'][0]} port=5432 user=postgres dbname={parts.path[1:]}"
    )


_GRANT = "SELECT ledger.change_access('test', 'root', $1, '{work,read}', NULL, NULL, 'trial')"


async def filled(ledger: Ledger, key: str) -> None:
    """Have runs in several states, a paused and a limited kind, a role and a schedule."""
    lease = await claimed(ledger, input={"path": "ä.py"}, key=key)
    await ledger.transition(lease, State.COMPLETED, output={"lines": 3}, cost_usd_delta=0.25)
    await claimed(ledger)
    await ledger.submit("parse", delay=3_600)
    for kind in ("held", f"held-{key}"):
        await ledger.pause_kind(kind, actor="ann", reason="trial", ahead=True)
        await ledger.limit_kind(kind, 3, actor="ann")
    await ledger.resume_kind("held", actor="ann")
    await ledger.pool.execute(_GRANT, f"token:{key}")
    await ledger.grant_role("finance", f"ann-{key}", actor="root", reason="head")


async def caught_up(publisher: asyncpg.Connection, subscriber: asyncpg.Connection) -> None:
    """Return once the new server has all that the old one has committed."""
    await publisher.execute("CHECKPOINT")
    end = await publisher.fetchval("SELECT pg_current_wal_lsn()::text")

    async def has_all() -> bool:
        ready = await subscriber.fetchval(
            "SELECT count(*) = 0 FROM pg_subscription_rel WHERE srsubstate <> 'r'"
        )
        return bool(ready) and bool(
            await publisher.fetchval(
                "SELECT count(*) > 0 FROM pg_stat_replication "
                "WHERE application_name = 'runfold' AND replay_lsn >= $1::text::pg_lsn",
                end,
            )
        )

    await until(has_all)


async def rows(connection: asyncpg.Connection, table: str) -> list[str]:
    """Return the rows of a table as text."""
    return [
        row[0]
        for row in await connection.fetch(f"SELECT t::text FROM ledger.{table} AS t ORDER BY 1")
    ]


def test_every_table_is_published_or_left_out_on_purpose() -> None:
    published = set(re.findall(r"ledger\.(\w+)", PUBLISH)) - {"alembic_version"}

    assert published | UNPUBLISHED == {table.name for table in tables.metadata.tables.values()}
    assert not published & UNPUBLISHED


async def test_a_ledger_moves_to_another_server_and_loses_nothing(
    replicated: Ledger,
    new: str,
    publisher: asyncpg.Connection,
    subscriber: asyncpg.Connection,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fresh, reading = Reader(replicated.pool), Reader(replicated.pool)
    await reading.drain()
    await filled(replicated, "after")
    await caught_up(publisher, subscriber)
    for name in re.findall(r"ledger\.(\w+)", PUBLISH):
        assert await rows(subscriber, name) == await rows(publisher, name), name

    await subscriber.execute(END)
    cli = Cli(new, capsys)
    await asyncio.to_thread(cli.ok, "db", "upgrade")
    assert await asyncio.to_thread(lambda: "generation 2" in cli.ok("projections", "rebase").err)
    async with Ledger.open(new, PROJECT) as ledger:
        await filled(ledger, "there")
        for reader in (fresh, reading):
            reader.source = ledger.pool
            await reader.drain()
            assert_complete(reader, await stored(ledger.pool))
        assert {kind.kind: kind.paused for kind in await ledger.kinds()}["held-after"] is True
    assert await asyncio.to_thread(lambda: cli("drift").code) == exits.OK
    report = await asyncio.to_thread(lambda: cli("doctor", "--json").json)
    assert [
        c
        for c in report["checks"]
        if c["name"] in {"feed", "objects", "schema"} and c["level"] != "ok"
    ] == []
    await assert_consistent(new)


async def test_a_month_that_the_new_server_lacks_stops_the_subscription_until_it_is_made(
    replicated: Ledger, publisher: asyncpg.Connection, subscriber: asyncpg.Connection
) -> None:
    await caught_up(publisher, subscriber)
    await publisher.execute("SELECT ledger.make_partitions(6)")
    await publisher.execute(
        "CREATE OR REPLACE FUNCTION ledger.uuid7() RETURNS uuid LANGUAGE sql VOLATILE "
        "AS $$SELECT uuidv7(interval '5 months')$$"
    )
    late = await replicated.submit("parse")
    failures = "SELECT apply_error_count > 0 FROM pg_stat_subscription_stats"
    await until(lambda: subscriber.fetchval(failures))

    await subscriber.execute("SELECT ledger.make_partitions(6)")
    await caught_up(publisher, subscriber)

    found = "SELECT count(*) FROM ledger.event WHERE run_id = $1"
    assert await subscriber.fetchval(found, late.run_id) == 1
    assert await rows(subscriber, "event") == await rows(publisher, "event")
    await subscriber.execute(END)
