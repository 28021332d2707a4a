"""A grant limits its login on the server, where nobody else has, and a revocation ends that."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from runfold.ledger import Ledger
from runfold.ledger.control_history import control_history
from runfold.ledger.postgres.connections import FAILURES
from runfold.ledger.postgres.login_limits import unlimited
from runfold.ledger.postgres.urls import driver_url
from tests.support.logins import grant, login_of, with_login

IDLE = "idle_in_transaction_session_timeout"


async def own_limits(url: str) -> dict[str, str]:
    session = await asyncpg.connect(driver_url(url))
    try:
        rows = await session.fetch(
            "SELECT name, current_setting(name) AS value FROM pg_settings "
            "WHERE name ~ '^(idle_in_transaction_session|lock|statement|transaction)_timeout$'"
        )
        return {row["name"]: row["value"] for row in rows}
    finally:
        await session.close()


def is_17(connection: asyncpg.Connection[Any]) -> bool:
    return connection.get_server_version().major >= 17


async def test_a_login_has_limits_from_its_first_right_to_its_last_and_they_are_on_record(
    database: str, ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    async with with_login(database, "runfold_worker", rights=("work",)) as url:
        login = login_of(url)
        limits = {IDLE: "10min", "lock_timeout": "6min", "statement_timeout": "30min"}
        if is_17(connection):
            limits["transaction_timeout"] = "1d"
        assert await own_limits(url) == limits
        await connection.execute(
            f"GRANT CONNECT ON DATABASE {await connection.fetchval('SELECT current_database()')} "
            "TO PUBLIC"
        )
        await grant(connection, login, ())
        assert set((await own_limits(url)).values()) == {"0"}

    history = await control_history(ledger.project)
    assert [e.type for e in history if e.subject == f"limits:{login}"] == [
        "limits.set",
        "limits.reset",
    ]


async def test_a_value_that_somebody_else_has_set_stays(
    database: str, connection: asyncpg.Connection[Any]
) -> None:
    name = await connection.fetchval("SELECT current_database()")
    async with with_login(database, "runfold_worker") as url:
        login = login_of(url)
        await connection.execute(f"ALTER ROLE {login} SET statement_timeout = '7s'")
        await connection.execute(f"ALTER ROLE {login} IN DATABASE {name} SET {IDLE} = '8s'")
        await grant(connection, login, ("work",))
        limits = await own_limits(url)
        assert (limits["statement_timeout"], limits[IDLE]) == ("7s", "8s")
        assert limits["lock_timeout"] == "6min"
        await connection.execute(f"GRANT CONNECT ON DATABASE {name} TO PUBLIC")
        await grant(connection, login, ())
        assert (await own_limits(url))[IDLE] == "8s"


async def test_a_login_that_leaves_a_transaction_open_is_ended_by_the_server(
    database: str, ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    run = await ledger.submit("parse")
    async with with_login(database, "runfold_worker") as url:
        await connection.execute(f"ALTER ROLE {login_of(url)} SET {IDLE} = '200ms'")
        await grant(connection, login_of(url), ("submit",))
        idler = await asyncpg.connect(driver_url(url))
        await idler.execute(  # in one message, or a busy server ends the transaction before it
            f"BEGIN;SELECT ledger.cancel('test', 'x', ARRAY['{run.run_id}'::uuid], NULL)"
        )
        await ledger.cancel(run.run_id)  # waits for the server to end the idler
        with pytest.raises((*FAILURES, OSError)):
            await idler.execute("COMMIT")
        idler.terminate()


async def test_neither_grant_nor_revocation_waits_for_a_login_that_holds_its_own_settings(
    database: str, connection: asyncpg.Connection[Any]
) -> None:
    said: list[str] = []
    connection.add_log_listener(lambda _, message: said.append(str(message)))
    name = await connection.fetchval("SELECT current_database()")
    async with with_login(database, "runfold_worker", rights=("work",)) as url:
        login = login_of(url)
        holder = await asyncpg.connect(driver_url(url))
        async with holder.transaction():
            await holder.execute(f"ALTER ROLE {login} IN DATABASE {name} SET work_mem = '5MB'")
            await grant(connection, login, ())
        assert not await connection.fetchval(
            "SELECT cardinality(rights) FROM ledger.access_grant WHERE credential = $1", login
        )
        await holder.close()
    assert "another change of its settings" in " ".join(said)


async def test_an_owner_that_may_not_change_a_login_grants_all_the_same_and_says_so(
    database: str, connection: asyncpg.Connection[Any]
) -> None:
    said: list[str] = []
    connection.add_log_listener(lambda _, message: said.append(str(message)))
    async with with_login(database, "runfold_worker") as url, with_login(database) as other:
        owner = login_of(other)
        async with connection.transaction():
            await connection.execute(
                f"GRANT ALL ON ALL TABLES IN SCHEMA ledger TO {owner};"
                f"GRANT USAGE ON SCHEMA ledger TO {owner};"
                f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA ledger TO {owner}"
            )
            await grant(connection, login_of(url), ("work",))
            await connection.execute(
                "ALTER ROLE "
                f"{login_of(url)} IN DATABASE "
                f"{await connection.fetchval('SELECT current_database()')} RESET ALL"
            )
            await connection.execute(f"GRANT {owner} TO CURRENT_USER")
            await connection.execute(f"SET LOCAL ROLE {owner}")
            await connection.execute(
                "SELECT ledger.limit_login('test', 'ann', $1, NULL)", login_of(url)
            )
            await connection.execute("RESET ROLE")
        [line] = await unlimited(connection, login_of(url))
    assert "an administrator may" in " ".join(said)
    assert "statement_timeout" in line


async def test_a_login_with_rights_and_without_a_limit_is_named_until_the_remedy_is_run(
    database: str, connection: asyncpg.Connection[Any]
) -> None:
    assert await unlimited(connection) == []
    name = await connection.fetchval("SELECT current_database()")
    async with (
        with_login(database, "runfold_worker", rights=("work",)) as url,
        with_login(database, "runfold_reader"),
    ):
        login = login_of(url)
        assert await unlimited(connection) == [
            (
                f"login {login} has rights and no connection limit: "
                f"ALTER ROLE {login} CONNECTION LIMIT 100"
            )
        ]
        await connection.execute(f"ALTER ROLE {login} IN DATABASE {name} RESET lock_timeout")
        [line] = await unlimited(connection, login)
        assert "no connection limit, lock_timeout: " in line
        await connection.execute(line.partition(": ")[2])
        assert await unlimited(connection) == []
    await grant(connection, await connection.fetchval("SELECT current_user::text"), ("read",))
    assert await unlimited(connection) == []  # the owner
