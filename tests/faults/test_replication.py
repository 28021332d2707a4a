"""A move to another server by logical replication, as docs/howto/upgrade.md has it."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from runfold.console.cli.kit import exits
from runfold.ledger import Ledger, State
from runfold.ledger.postgres import schema, tables
from runfold.ledger.postgres.embedded.postgres import temporary_postgres
from runfold.ledger.postgres.embedded.programs import find_programs
from runfold.ledger.postgres.urls import driver_url
from runfold.projections.declared.catch_up import CatchUp
from runfold.projections.declared.installing import install
from runfold.projections.declared.refold import refold
from runfold.projections.models.counts import RUN_COUNTS
from tests.support.console import Cli
from tests.support.databases import PROJECT, assert_consistent
from tests.support.feeding import Reader, assert_complete, stored
from tests.support.processes import ROOT
from tests.support.runs import claimed
from tests.support.server import ROOM
from tests.support.server_folder import open_folder, server_folder
from tests.support.waiting import until

LOGICAL = ROOM | {"wal_level": "logical", "wal_retrieve_retry_interval": "100ms"}
PAGE = (ROOT / "docs" / "howto" / "upgrade.md").read_text()
PUBLISH, SUBSCRIBE, END = re.findall(r"```postgresql\n(.*?)```", PAGE, re.DOTALL)
COUNTED = "SELECT * FROM projection.run_counts ORDER BY project_id, kind, state"
DUMPS = [line for line in PAGE.splitlines() if "| psql" in line]
PROGRAMS_15 = Path("/usr/lib/postgresql/15/bin")
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
    """The database that is left, of an owner without other rights; where it is there, in 15."""
    with _server_15() if PROGRAMS_15.is_dir() and not os.geteuid() else _server_18() as url:
        asyncio.run(have_owner(url))
        runs = url.replace("/postgres?", "/runs?")
        asyncio.run(schema.upgrade(as_login("runfold_owner", runs)))
        yield runs


async def have_owner(url: str) -> None:
    """Make the owner of the schema and its database, as access.md has them."""
    connection = await asyncpg.connect(driver_url(url))
    await connection.execute("CREATE ROLE runfold_owner LOGIN CREATEROLE")
    await connection.execute(
        # Of a collation that the new server, built without ICU, has too.
        "CREATE DATABASE runs OWNER runfold_owner ENCODING 'UTF8' TEMPLATE template0 "
        "LOCALE_PROVIDER libc LOCALE 'C.UTF-8'"
    )
    await connection.close()


@contextmanager
def _server_18() -> Iterator[str]:
    with temporary_postgres(LOGICAL, server_folder()) as postgres:
        yield postgres.url()


@contextmanager
def _server_15() -> Iterator[str]:
    with open_folder() as folder:
        program, home = str(ROOT / ".ci" / "postgres-15"), str(folder / "15")
        started = subprocess.run([program, "start", home], check=True, capture_output=True)
        try:
            yield started.stdout.decode().strip()
        finally:
            subprocess.run([program, "stop", home], check=True)


@pytest.fixture
def new() -> Iterator[str]:
    """The database that takes over, which is not yet there."""
    with _server_18() as url:
        yield url.replace("/postgres?", "/runs?")


def prepare(old: str, new: str) -> None:
    """Give the new server the roles and the schema, by the commands of the page."""
    dump(old, new, DUMPS[0])
    dump(old, new, f"{DUMPS[1]} -v ON_ERROR_STOP=1")


def bring_projections(old: str, new: str) -> None:
    """Bring the projections over, by the commands of the page."""
    for line in DUMPS[2:]:
        dump(old, new, f"{line} -v ON_ERROR_STOP=1")


def dump(old: str, new: str, line: str) -> None:
    """Run a command of the page, whose only errors may be of what both servers have."""
    server = libpq(new).replace("dbname=runs", "dbname=postgres")
    places = {"OLD": libpq(old), "NEW": server, "RUNS": libpq(new), "LC_ALL": "C"}
    path = {"PATH": f"{find_programs()}:{os.environ['PATH']}"}
    told = subprocess.run(
        ["bash", "-ec", f"{line} -q"],
        env={**os.environ, **places, **path}, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert [line for line in told.stderr.splitlines() if "already exists" not in line] == []


@pytest.fixture
async def publisher(old: str) -> AsyncIterator[asyncpg.Connection]:
    async with Ledger.open(as_login("runfold_owner", old), PROJECT, create_project=True) as ledger:
        await ledger.pool.execute("CREATE ROLE shop_worker LOGIN CONNECTION LIMIT 20")
        await ledger.pool.execute("GRANT runfold_worker TO shop_worker")
        await ledger.grant_access("shop_worker", rights=["submit", "work"])
    connection = await asyncpg.connect(driver_url(old))
    yield connection
    await connection.close()


@pytest.fixture
async def subscriber(old: str, new: str) -> AsyncIterator[asyncpg.Connection]:
    await asyncio.to_thread(prepare, old, new)
    connection = await asyncpg.connect(driver_url(new))
    yield connection
    await connection.close()


@pytest.fixture
async def replicated(
    old: str, publisher: asyncpg.Connection, subscriber: asyncpg.Connection
) -> AsyncIterator[Ledger]:
    """The ledger of the old server, filled before the new one subscribed, and replicated."""
    async with Ledger.open(old, PROJECT) as ledger:
        await filled(ledger, "before")
        await publisher.execute(PUBLISH)
        reached = libpq(as_login("replicator", old))
        await subscriber.execute(re.sub("CONNECTION '.*?'", f"CONNECTION '{reached}'", SUBSCRIBE))
        yield ledger


def as_login(login: str, url: str) -> str:
    """Return a superuser's URL as that of another login."""
    return url.replace("//postgres@", f"//{login}@")


def libpq(url: str) -> str:
    """Return a URL as the words of a connection."""
    parts = urlsplit(url)
    host = parse_qs(parts.query)["host"][0]
    return f"host={host} port=5432 user={parts.username} dbname={parts.path[1:]}"


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


@pytest.mark.slow
async def test_a_ledger_moves_to_another_server_and_loses_nothing(
    replicated: Ledger,
    *,
    old: str,
    new: str,
    publisher: asyncpg.Connection,
    subscriber: asyncpg.Connection,
    capsys: pytest.CaptureFixture[str],
) -> None:
    await install(replicated.pool, RUN_COUNTS)
    await CatchUp(replicated.pool, RUN_COUNTS).to_the_end()
    counted = await replicated.pool.fetch(COUNTED)
    fresh, reading = Reader(replicated.pool), Reader(replicated.pool)
    await reading.drain()
    await filled(replicated, "after")
    await caught_up(publisher, subscriber)
    for name in re.findall(r"ledger\.(\w+)", PUBLISH):
        assert await rows(subscriber, name) == await rows(publisher, name), name

    await subscriber.execute(END)
    cli = Cli(as_login("runfold_owner", new), capsys)
    await asyncio.to_thread(cli.ok, "db", "upgrade")
    assert await asyncio.to_thread(lambda: "generation 2" in cli.ok("projections", "rebase").err)
    await asyncio.to_thread(bring_projections, old, new)
    async with Ledger.open(new, PROJECT) as ledger:
        assert await ledger.pool.fetch(COUNTED) == counted
        await filled(ledger, "there")
        for reader in (fresh, reading):
            reader.source = ledger.pool
            await reader.drain()
            assert_complete(reader, await stored(ledger.pool))
        assert {kind.kind: kind.paused for kind in await ledger.kinds()}["held-after"] is True
        await CatchUp(ledger.pool, RUN_COUNTS).to_the_end()
        assert (await refold(ledger.pool, RUN_COUNTS)).wrong == 0
    assert await asyncio.to_thread(lambda: cli("drift").code) == exits.OK
    report = await asyncio.to_thread(lambda: cli("doctor", "--json").json)
    assert [
        check
        for check in report["checks"]
        if check["name"] in {"feed", "objects", "schema", "limits"}
        and (check["level"], "no transaction_timeout:" in check["detail"]) == ("warning", False)
    ] == []  # a login of 15 has no such limit
    async with Ledger.open(as_login("shop_worker", new), PROJECT) as ledger:
        await claimed(ledger, "shop_worker")
    await assert_consistent(new)


@pytest.mark.slow
async def test_a_month_that_the_new_server_lacks_stops_the_subscription_until_it_is_made(
    replicated: Ledger, publisher: asyncpg.Connection, subscriber: asyncpg.Connection
) -> None:
    await caught_up(publisher, subscriber)
    await publisher.execute("SELECT ledger.make_partitions(6)")
    await publisher.execute(
        "CREATE OR REPLACE FUNCTION ledger.uuid7() RETURNS uuid LANGUAGE sql VOLATILE "
        "AS $$SELECT ledger.uuid7_floor((now() + interval '5 months')::timestamp)$$"
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
