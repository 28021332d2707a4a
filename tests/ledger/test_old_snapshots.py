"""Whatever was revoked gives no right in a transaction whose snapshot shows it as if it held."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import asyncpg
import pytest

from runfold.ledger import Ledger, access, api_tokens
from runfold.ledger.postgres.server_roles import ROLES
from runfold.ledger.postgres.urls import driver_url
from runfold.projections.declared.installing import install
from runfold.projections.models.counts import RUN_COUNTS
from tests.ledger.test_access import calls
from tests.support.databases import PROJECT
from tests.support.logins import grant, with_login

LEVELS: Final = ("repeatable_read", "serializable")
SUBMIT: Final = (
    "SELECT run_id FROM ledger.submit('test', $1, '{parse}', NULL, NULL, '{0}', NULL, '{1}',"
    " NULL, NULL, NULL)"
)
READING: Final = {"history", "closings", "read_run"}


@pytest.fixture
async def member(database: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A login of every role, with every right in all projects."""
    async with with_login(database, *ROLES, rights=access.RIGHTS, project="*") as url:
        opened = await asyncpg.connect(driver_url(url))
        yield opened
        await opened.close()


async def test_a_revoked_login_does_nothing_more_from_an_older_snapshot(
    ledger: Ledger,
    connection: asyncpg.Connection[Any],
    member: asyncpg.Connection[Any],
    subtests: pytest.Subtests,
) -> None:
    """Nor gives it itself in a project's list what it lost in that of all projects."""
    run = await ledger.submit("parse")
    login = await member.fetchval("SELECT session_user::text")
    tried = await calls(run.run_id, PROJECT)
    tried["change_access of itself"] = (
        f"SELECT ledger.change_access('test', 'm', '{login}', '{{admin}}', NULL, NULL, NULL)",
        (),
    )
    await connection.execute("SET lock_timeout = '2s'")
    for level in LEVELS:
        await grant(connection, login, access.RIGHTS, project="*")
        async with member.transaction(isolation=level):
            assert await member.fetchval(SUBMIT, login) is not None
            await grant(connection, login, (), project="*")  # which waits for nobody
            went = set()
            for name, (statement, arguments) in tried.items():
                with subtests.test(name, level=level):
                    try:
                        async with member.transaction():
                            await member.fetch(statement, *arguments)
                            went.add(name)
                    except (
                        asyncpg.SerializationError,
                        asyncpg.ActiveSQLTransactionError,  # of a decision
                    ):
                        continue
            assert went <= READING
    grants = await access.grants(ledger.project, login)
    assert [granted.rights for granted in grants if granted.rights] == []


async def test_no_token_and_no_session_that_ended_gives_a_right_in_an_older_snapshot(
    ledger: Ledger, connection: asyncpg.Connection[Any], member: asyncpg.Connection[Any]
) -> None:
    credential, secret = await api_tokens.make_token(ledger.project, "ci")
    await access.grant(ledger.project, credential, ["submit"], actors=["ci"])
    session = "runfold_session_x"
    begin = "SELECT ledger.sign_in_by_token($1, sha256(convert_to($2, 'UTF8')))"
    assert await connection.fetchval(begin, secret, session) == credential

    for presented, end in (
        (session, "SELECT ledger.end_session(NULL, session_id) FROM ledger.web_session"),
        (secret, f"SELECT ledger.change_token('m', '{credential[6:]}', NULL, NULL, NULL, NULL)"),
    ):
        async with member.transaction(isolation="repeatable_read"):
            await member.execute("SELECT set_config('runfold.token', $1, true)", presented)
            assert await member.fetchval(SUBMIT, "ci") is not None
            assert await connection.fetchval(end)
            with pytest.raises(asyncpg.SerializationError):
                async with member.transaction():
                    await member.fetchval(SUBMIT, "ci")


COUNT: Final = (
    "INSERT INTO projection.run_counts_v1 (project_id, kind, state, entered, departed) "
    "VALUES ('test', $1, 'x', 1, 0)"
)
SKIP: Final = "UPDATE ledger.projection SET position = position + 1 RETURNING name"
RAISED: Final = "UPDATE projection.run_counts_v1 SET entered = 7 RETURNING kind"


async def test_a_revoked_projector_writes_nothing_from_an_older_snapshot(
    ledger: Ledger, connection: asyncpg.Connection[Any], member: asyncpg.Connection[Any]
) -> None:
    await install(ledger.pool, RUN_COUNTS)
    await member.execute(COUNT, "before")
    assert len(await member.fetch(SKIP)) == 1
    login = await member.fetchval("SELECT session_user::text")
    for level in LEVELS:
        async with member.transaction(isolation=level):
            assert await member.fetchval("SELECT count(*) FROM projection.run_counts_v1") == 1
            await grant(connection, login, (), project="*")
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with member.transaction():
                    await member.execute(COUNT, level)
            assert await member.fetch(SKIP) == await member.fetch(RAISED) == []
        await grant(connection, login, access.RIGHTS, project="*")
    await connection.execute("DELETE FROM projection.run_counts_v1")
    await connection.execute("UPDATE ledger.projection SET position = position - 1")
