"""What a login may try in order to sign in as somebody else, each refused or without effect."""

from __future__ import annotations

import hashlib
from typing import Any

import asyncpg
import pytest

from runfold.ledger import users
from runfold.ledger.errors import ConfigurationError
from runfold.ledger.postgres.urls import driver_url
from tests.support.logins import login_of, with_login

CHANGE = (
    "SELECT ledger.change_user('boss', 'ann', $1, 'argon2id t=1 m=64 p=1', $2, $3, NULL, NULL,"
    " NULL)"
)
SECRET = "runfold_session_x"  # noqa: S105
SIGN_IN = f"SELECT ledger.sign_in_by_password('ann', $1, sha256('{SECRET}'))"
SALT = b"s" * 16


async def entered(
    connection: asyncpg.Connection[Any], key: bytes, statement: str = SIGN_IN
) -> str | None:
    """Sign in as a program does: the try is on record, and then it is answered."""
    assert await connection.fetchval(statement, key) is None
    credential: str | None = await connection.fetchval(statement, key)
    return credential


async def test_no_password_is_changed_off_the_record(
    connection: asyncpg.Connection[Any],
) -> None:
    """An administrator who signs in as somebody leaves a trace."""
    await connection.execute(CHANGE, "add", SALT, hashlib.sha256(b"old").digest())
    recorded = await connection.fetchval("SELECT count(*) FROM ledger.control_event")

    with pytest.raises(asyncpg.PostgresError, match="p_change"):
        await connection.execute(CHANGE, None, SALT, hashlib.sha256(b"mine").digest())

    assert await entered(connection, b"mine") is None
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


async def test_no_session_begins_without_the_digest_of_its_secret(
    connection: asyncpg.Connection[Any], subtests: pytest.Subtests
) -> None:
    await connection.execute(CHANGE, "add", SALT, hashlib.sha256(b"old").digest())
    for sha256 in ("NULL", "'abc'", "'\\x'"):
        statement = f"SELECT ledger.sign_in_by_password('ann', $1, {sha256}::bytea)"
        with (
            subtests.test(sha256),
            pytest.raises(asyncpg.InvalidParameterValueError, match="a SHA-256 of 32 bytes"),
        ):
            await entered(connection, b"old", statement)


async def test_no_login_uses_up_the_tries_of_those_who_sign_in_by_another(
    database: str, connection: asyncpg.Connection[Any]
) -> None:
    await connection.execute(CHANGE, "add", SALT, hashlib.sha256(b"right").digest())
    async with with_login(database, "runfold_worker") as url:
        hostile = await asyncpg.connect(driver_url(url))
        for number in range(11):
            assert await entered(hostile, b"wrong %d" % number) is None
        assert await entered(hostile, b"right") is None
        await hostile.close()

    assert await entered(connection, b"right") == "user:ann"


async def test_no_try_is_answered_that_is_not_on_record(
    database: str, connection: asyncpg.Connection[Any]
) -> None:
    """Whoever takes the answer back has tried all the same."""
    await connection.execute(CHANGE, "add", SALT, hashlib.sha256(b"right").digest())
    async with with_login(database, "runfold_worker") as url:
        hostile = await asyncpg.connect(driver_url(url))
        for level in ("read_committed", "repeatable_read", "serializable"):
            taken_back = hostile.transaction(isolation=level)
            await taken_back.start()
            for _ in range(3):
                async with hostile.transaction():
                    assert await hostile.fetchval(SIGN_IN, b"right") is None
            await taken_back.rollback()
        for number in range(10):
            assert await hostile.fetchval(SIGN_IN, b"wrong %d" % number) is None
            taken_back = hostile.transaction()
            await taken_back.start()
            assert await hostile.fetchval(SIGN_IN, b"wrong %d" % number) is None
            await taken_back.rollback()
        assert await entered(hostile, b"right") is None
        await hostile.close()
    tries = "SELECT failed_uses FROM ledger.credential_use WHERE login = $1"
    assert await connection.fetchval(tries, login_of(url)) == 10


async def test_a_session_that_an_old_password_begins_during_its_change_ends_with_it(
    database: str, connection: asyncpg.Connection[Any]
) -> None:
    """Nobody waits for the other: neither commits before the other has looked."""
    await connection.execute(CHANGE, "add", SALT, hashlib.sha256(b"old").digest())
    async with with_login(database, "runfold_worker") as url:
        thief = await asyncpg.connect(driver_url(url))
        assert await thief.fetchval(SIGN_IN, b"old") is None
        async with thief.transaction():
            assert await thief.fetchval(SIGN_IN, b"old") == "user:ann"  # it was on record
            await connection.execute(CHANGE, "password", SALT, hashlib.sha256(b"new").digest())
        assert await thief.fetchval("SELECT ledger.use_token($1)", SECRET) is None

        assert await entered(thief, b"old", SIGN_IN.replace("session_x", "session_y")) is None
        other = SIGN_IN.replace("session_x", "session_z")
        assert await thief.fetchval(other, b"new") is None
        async with connection.transaction():
            await connection.execute(CHANGE, "password", SALT, hashlib.sha256(b"old").digest())
            assert await thief.fetchval(other, b"new")
        assert await thief.fetchval("SELECT ledger.use_token('runfold_session_z')") is None
        await thief.close()
