"""What a login may try in order to sign in as somebody else, each refused or without effect."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import asyncpg
import pytest

from runfold.ledger import users
from runfold.ledger.errors import ConfigurationError
from runfold.ledger.postgres.urls import driver_url
from tests.support.logins import with_login
from tests.support.waiting import until

CHANGE = (
    "SELECT ledger.change_user('boss', 'ann', $1, 'argon2id t=1 m=64 p=1', $2, $3, NULL, NULL,"
    " NULL)"
)
SIGN_IN = "SELECT ledger.sign_in_by_password('ann', $1, sha256('x'))"
SALT = b"s" * 16


async def test_no_password_is_changed_off_the_record(
    connection: asyncpg.Connection[Any],
) -> None:
    """An administrator who signs in as somebody leaves a trace."""
    await connection.execute(CHANGE, "add", SALT, hashlib.sha256(b"old").digest())
    recorded = await connection.fetchval("SELECT count(*) FROM ledger.control_event")

    with pytest.raises(asyncpg.PostgresError, match="p_change"):
        await connection.execute(CHANGE, None, SALT, hashlib.sha256(b"mine").digest())

    assert await connection.fetchval(SIGN_IN, b"mine") is None
    assert await connection.fetchval("SELECT count(*) FROM ledger.control_event") == recorded


GREEDY = (
    "argon2id t=3 m=262145 p=1",
    "argon2id t=11 m=64 p=1",
    "argon2id t=1 m=64 p=5",
    "argon2id t=0 m=64 p=1",
)


async def test_no_stored_method_takes_the_memory_of_those_who_check_a_password(
    connection: asyncpg.Connection[Any],
) -> None:
    for method in GREEDY:
        with pytest.raises(asyncpg.InvalidParameterValueError, match="at most 10 passes"):
            await connection.execute(
                "SELECT ledger.change_user('boss', 'ann', 'add', $1, $2, sha256('x'), NULL, NULL,"
                " NULL)",
                method,
                SALT,
            )
        with pytest.raises(ConfigurationError, match="set the password anew"):
            users.key_of("correct horse battery", method, SALT)


@pytest.mark.parametrize("sha256", ["NULL", "'abc'", "'\\x'"])
async def test_no_session_begins_without_the_digest_of_its_secret(
    connection: asyncpg.Connection[Any], sha256: str
) -> None:
    await connection.execute(CHANGE, "add", SALT, hashlib.sha256(b"old").digest())

    with pytest.raises(asyncpg.InvalidParameterValueError, match="a SHA-256 of 32 bytes"):
        await connection.fetchval(
            f"SELECT ledger.sign_in_by_password('ann', $1, {sha256}::bytea)", b"old"
        )


async def test_an_old_password_that_waits_for_its_change_begins_no_session(
    database: str, connection: asyncpg.Connection[Any]
) -> None:
    await connection.execute(CHANGE, "add", SALT, hashlib.sha256(b"old").digest())
    async with with_login(database, "runfold_worker") as url:
        thief = await asyncpg.connect(driver_url(url))
        async with connection.transaction():
            await connection.execute(CHANGE, "password", SALT, hashlib.sha256(b"new").digest())
            trying = asyncio.create_task(thief.fetchval(SIGN_IN, b"old"))

            async def waits() -> Any:
                return await connection.fetchval(
                    "SELECT true FROM pg_locks WHERE pid = $1 AND NOT granted",
                    thief.get_server_pid(),
                )

            await until(waits, 30)

        assert await trying is None
        await thief.close()
    assert await connection.fetchval("SELECT count(*) FROM ledger.web_session") == 0
