"""What a login of another project may try by hand, each refused or without effect."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from runfold.ledger import Ledger
from runfold.ledger.postgres.urls import driver_url
from tests.conftest import PROJECT
from tests.support.logins import grant, with_login

OTHER = "other"
REFUSED = (
    "SET ROLE postgres",
    "SET SESSION AUTHORIZATION postgres",
    "SET session_replication_role = replica",
    "GRANT runfold_auditor TO CURRENT_USER",
    "ALTER TABLE ledger.event DISABLE ROW LEVEL SECURITY",
    "ALTER TABLE ledger.event DISABLE TRIGGER ALL",
    "DROP POLICY IF EXISTS readable ON ledger.event; DROP TABLE ledger.event",
    "CREATE TABLE ledger.mine (a int)",
    "CREATE FUNCTION ledger.mine() RETURNS int LANGUAGE sql RETURN 1",
    "CREATE TABLE projection.mine (a int)",
    "CREATE OPERATOR public.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = textlt)",
    "INSERT INTO ledger.event SELECT * FROM ledger.event LIMIT 1",
    "UPDATE ledger.run_state SET state = 'completed'",
    "DELETE FROM ledger.payload",
    "TRUNCATE ledger.control_event",
    "INSERT INTO ledger.access_grant SELECT * FROM ledger.access_grant",
    "COPY ledger.event FROM STDIN",
    "COPY (SELECT 1) TO '/tmp/mine'",
    "COPY (SELECT 1) TO PROGRAM 'cat'",
    "SELECT * FROM ledger.run_state FOR UPDATE",
    "SELECT * FROM ledger.event FOR SHARE",
    "LOCK TABLE ledger.run_state IN ROW EXCLUSIVE MODE",
    "LOCK TABLE ledger.project IN ACCESS EXCLUSIVE MODE",
    "SELECT salt FROM ledger.payload",
    "SELECT sha256 FROM ledger.api_token",
    "SELECT setval('ledger.event_position', 1)",
    "SELECT nextval('ledger.event_position')",
    "SELECT pg_read_file('postgresql.conf')",
    "SELECT pg_stat_reset()",
)


@pytest.fixture
async def attacker(database: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A login that works in project `test`, beside a project with a run of its own."""
    async with (
        Ledger.open(database, OTHER, create_project=True) as other,
        with_login(
            database, "runfold_worker", rights=("submit", "work", "read", "schedule")
        ) as url,
    ):
        await other.submit("parse", {"marked": "canary"}, key="canary")
        connection = await asyncpg.connect(driver_url(url))
        yield connection
        await connection.close()


@pytest.mark.parametrize("statement", REFUSED, ids=lambda statement: statement[:40])
async def test_what_only_the_owner_may_is_refused(
    attacker: asyncpg.Connection[Any], statement: str
) -> None:
    with pytest.raises(asyncpg.PostgresError) as refused:
        async with attacker.transaction():
            await attacker.execute(statement)
    assert refused.value.sqlstate in {"42501", "22023"}, refused.value
    assert "canary" not in str(refused.value)


async def test_a_leaky_function_a_cursor_and_a_shadow_see_no_row_of_others(
    ledger: Ledger, attacker: asyncpg.Connection[Any]
) -> None:
    await ledger.submit("parse", {"mine": 1})
    await attacker.execute(
        "CREATE TEMP TABLE heard (project text, body text);"
        "CREATE FUNCTION pg_temp.leak(p text, b text) RETURNS bool LANGUAGE plpgsql COST 0.0001"
        " AS $$ BEGIN INSERT INTO heard VALUES (p, b); RETURN true; END $$;"
        "CREATE TEMP TABLE event (LIKE ledger.event);"
        "SET search_path = pg_temp, ledger, public"
    )
    await attacker.execute(
        "SELECT FROM ledger.payload WHERE pg_temp.leak(project_id, body::text);"
        "BEGIN; DECLARE mine CURSOR FOR SELECT * FROM ledger.entry"
        " WHERE pg_temp.leak(project_id, run_id::text); MOVE ALL FROM mine; COMMIT"
    )

    heard = await attacker.fetch("SELECT DISTINCT project FROM heard")
    assert [row["project"] for row in heard] == [PROJECT]


async def test_a_statement_prepared_before_a_revoke_sees_nothing_after_it(
    ledger: Ledger, attacker: asyncpg.Connection[Any], connection: asyncpg.Connection[Any]
) -> None:
    await ledger.submit("parse", {"mine": 1})
    login = await attacker.fetchval("SELECT session_user::text")
    read = await attacker.prepare("SELECT project_id FROM ledger.payload")
    assert [row["project_id"] for row in await read.fetch()] == [PROJECT]

    await grant(connection, login, ())

    assert await read.fetch() == []


async def test_other_sessions_and_locks_tell_nothing_of_what_is_in_them(
    attacker: asyncpg.Connection[Any], connection: asyncpg.Connection[Any]
) -> None:
    async with connection.transaction():
        await connection.execute("SELECT 'canary' FROM ledger.run_state FOR UPDATE")
        activity = await attacker.fetch(
            "SELECT query FROM pg_stat_activity WHERE usename <> current_user"
        )
        locks = await attacker.fetch("SELECT l::text FROM pg_locks AS l")
        statistics = await attacker.fetch(
            "SELECT most_common_vals::text FROM pg_stats WHERE schemaname = 'ledger'"
        )

    assert "canary" not in str([*activity, *locks, *statistics])
