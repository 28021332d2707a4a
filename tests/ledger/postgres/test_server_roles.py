"""The roles belong to the whole server: upgrades of its databases meet at them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator

import asyncpg
import pytest

from runfold.ledger import Ledger
from runfold.ledger.postgres import schema
from runfold.ledger.postgres.embedded.postgres import EmbeddedPostgres, temporary_postgres
from runfold.ledger.postgres.server_roles import ROLES
from runfold.ledger.postgres.urls import driver_url
from tests.support.console import Cli
from tests.support.databases import PROJECT
from tests.support.server import ROOM
from tests.support.server_folder import server_folder
from tests.support.waiting import until

pytestmark = pytest.mark.own_server

WAITING = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted"


@pytest.fixture
def fresh() -> Iterator[EmbeddedPostgres]:
    """A server without the roles."""
    with temporary_postgres(ROOM, server_folder()) as postgres:
        yield postgres


async def connected(server: EmbeddedPostgres) -> asyncpg.Connection:
    return await asyncpg.connect(driver_url(server.url()))


async def upgraded(url: str) -> int:
    """Upgrade a database in a process of its own; return its exit code."""
    words = ["-m", "runfold.console.cli.entry", "--url", url, "db", "upgrade"]
    process = await asyncio.create_subprocess_exec(sys.executable, *words)
    return await process.wait()


@pytest.mark.slow
async def test_databases_of_one_server_are_upgraded_at_once(fresh: EmbeddedPostgres) -> None:
    maintenance = await connected(fresh)
    names = [f"d{number}" for number in range(3)]
    for name in names:
        await maintenance.execute(f"CREATE DATABASE {name}")

    ends = await asyncio.gather(*(upgraded(fresh.url(name)) for name in names))

    assert ends == [0] * len(names)
    async with Ledger.open(fresh.url(names[-1]), PROJECT, create_project=True) as ledger:
        await ledger.submit("parse")
    await maintenance.close()


@pytest.mark.slow
async def test_a_role_that_somebody_else_makes_meanwhile_leaves_the_others_to_the_upgrade(
    fresh: EmbeddedPostgres,
) -> None:
    maintenance, other = await connected(fresh), await connected(fresh)
    transaction = other.transaction()
    await transaction.start()
    await other.execute("CREATE ROLE runfold_worker NOLOGIN")
    upgrade = asyncio.create_task(schema.upgrade(fresh.url()))
    await until(lambda: maintenance.fetchval(WAITING))
    await transaction.commit()

    await upgrade

    made = "SELECT count(*) FROM pg_roles WHERE rolname = ANY ($1)"
    assert await maintenance.fetchval(made, ROLES) == len(ROLES)
    await maintenance.close()
    await other.close()


@pytest.mark.parametrize("before", [(), ("runfold_reader", "runfold_worker")])
async def test_roles_that_the_owner_may_not_grant_are_named(
    fresh: EmbeddedPostgres, before: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    maintenance = await connected(fresh)
    if await maintenance.fetchval("SELECT current_setting('server_version_num')::int") < 160000:
        pytest.skip("before 16, a role that may make roles may grant all")
    for role in before:
        await maintenance.execute(f"CREATE ROLE {role} NOLOGIN")
    await maintenance.execute("CREATE ROLE owner LOGIN CREATEROLE")
    await maintenance.execute("CREATE DATABASE owned OWNER owner")
    cli = Cli(fresh.url("owned").replace("postgres@", "owner@", 1), capsys)

    upgraded = await asyncio.to_thread(lambda: cli.ok("db", "upgrade"))
    doctor = await asyncio.to_thread(lambda: cli("doctor", "--json"))

    named = ", ".join(sorted(before, reverse=True))
    [check] = [check for check in doctor.json["checks"] if check["name"] == "roles"]
    assert check["level"] == ("warning" if before else "ok")
    for text in (upgraded.err, check["detail"]):
        assert (f"may not grant {named}," in text) is bool(before)
    await maintenance.close()


async def test_a_database_that_the_owner_may_not_close_is_named(
    fresh: EmbeddedPostgres, capsys: pytest.CaptureFixture[str]
) -> None:
    maintenance = await connected(fresh)
    await maintenance.execute("CREATE ROLE owner LOGIN CREATEROLE")
    for name, owner in (("lent", "postgres"), ("owned", "owner")):
        await maintenance.execute(f"CREATE DATABASE {name} OWNER {owner}")
        await maintenance.execute(f"GRANT CREATE ON DATABASE {name} TO owner")
        cli = Cli(fresh.url(name).replace("postgres@", "owner@", 1), capsys)

        said = (await asyncio.to_thread(cli.ok, "db", "upgrade")).err
        again = await asyncio.to_thread(cli.ok, "db", "upgrade", "--json")

        remedy = f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC"
        assert (remedy in said) is (name == "lent")
        assert again.json["open_database"] == ("lent" if name == "lent" else None)
    await maintenance.close()


async def test_an_upgrade_that_finds_all_done_still_opens_the_database_to_its_logins_alone(
    fresh: EmbeddedPostgres, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after a restore: a dump keeps the grants, and leaves out who may connect."""
    maintenance = await connected(fresh)
    await maintenance.execute("CREATE ROLE owner LOGIN CREATEROLE; CREATE ROLE granted LOGIN")
    await maintenance.execute("CREATE ROLE stranger LOGIN; CREATE ROLE revoked LOGIN")
    await maintenance.execute("CREATE DATABASE copied OWNER owner")
    cli = Cli(fresh.url("copied").replace("postgres@", "owner@", 1), capsys, "shop")
    for words in (
        ("db", "upgrade"),
        ("project", "create", "shop"),
        ("access", "grant", "granted", "--rights", "read"),
        ("access", "grant", "revoked", "--rights", "read"),
        ("access", "revoke", "revoked"),
    ):
        await asyncio.to_thread(cli.ok, *words)
    await maintenance.execute(
        "GRANT CONNECT ON DATABASE copied TO PUBLIC; REVOKE CONNECT ON DATABASE copied FROM granted"
    )

    again = await asyncio.to_thread(cli.ok, "db", "upgrade", "--json")

    assert (again.json["changed"], again.json["open_database"]) == (False, None)
    may = "SELECT has_database_privilege($1, 'copied', 'CONNECT')"
    logins = ("granted", "revoked", "stranger")
    assert [await maintenance.fetchval(may, login) for login in logins] == [True, False, False]
    await maintenance.close()
