"""API tokens: credentials without a login, with rights of their own."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import asyncpg
import pytest

from runfold.ledger import Ledger, access, api_tokens, sessions, users
from runfold.ledger.errors import InvalidValue
from runfold.ledger.postgres.urls import driver_url
from tests.support.databases import PROJECT, name_of
from tests.support.logins import as_login

SUBMIT = (
    "SELECT * FROM ledger.submit($1, 'ci', '{k}', '{null}', '{null}', '{0}', '{null}', '{1}', "
    "'{null}', '{null}', '{null}')"
)


async def test_a_token_has_its_own_rights_whoever_presents_it(
    ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    credential, secret = await api_tokens.make_token(ledger.project, "ci")
    await access.grant(ledger.project, credential, ["submit"], actors=["ci"])

    assert await connection.fetchval("SELECT ledger.use_token($1)", secret) == credential
    await connection.execute("SELECT set_config('runfold.token', $1, false)", secret)
    [row] = await connection.fetch(SUBMIT, PROJECT)
    with pytest.raises(asyncpg.PostgresError, match="lacks the right work"):
        await connection.fetch("SELECT * FROM ledger.reap('test', 'reaper', 1)")
    [event] = await ledger.history(row["run_id"])
    assert event.credential == credential

    await api_tokens.revoke_token(ledger.project, credential)
    with pytest.raises(asyncpg.PostgresError, match="unknown, revoked or past its end"):
        await connection.fetch(SUBMIT, PROJECT)
    await connection.execute("SELECT set_config('runfold.token', $1, false)", secret + "x")
    with pytest.raises(asyncpg.PostgresError, match="unknown, revoked or past its end"):
        await connection.fetch(SUBMIT, PROJECT)
    await connection.execute("SELECT set_config('runfold.token', '', false)")
    assert await connection.fetchval("SELECT ledger.use_token($1)", secret) is None
    [token] = await api_tokens.tokens(ledger.project)
    assert (token.credential, token.failed_uses) == (credential, 1)
    assert secret not in str(await connection.fetch("SELECT * FROM ledger.api_token"))
    assert secret not in str(await connection.fetch("SELECT * FROM ledger.control_event"))


async def test_a_token_is_made_by_an_actor_and_for_a_reason_of_any_allowed_length(
    ledger: Ledger,
) -> None:
    credential, _ = await api_tokens.make_token(
        ledger.project, "ci", actor="a" * 200, reason="r" * 2_000
    )

    assert [token.credential for token in await api_tokens.tokens(ledger.project)] == [credential]


async def test_tokens_and_users_are_listed_page_by_page(ledger: Ledger) -> None:
    made = [(await api_tokens.make_token(ledger.project, "ci"))[0] for _ in range(5)]
    names = ["ann", "ben", "cleo"]
    for name in reversed(names):
        await users.add(ledger.project, name, provider=("https://id.example", name))

    tokens: list[api_tokens.ApiToken] = []
    while page := await api_tokens.tokens(
        ledger.project, after=tokens[-1].credential if tokens else "", limit=2
    ):
        tokens += page
    known = await users.users(ledger.project, limit=2)
    known += await users.users(ledger.project, after=known[-1].credential, limit=2)

    assert sorted(token.credential for token in tokens) == sorted(made)
    assert tokens == await api_tokens.tokens(ledger.project)
    assert [user.name for user in known] == names
    for wrong in (0, 10_001):
        with pytest.raises(InvalidValue, match="limit"):
            await api_tokens.tokens(ledger.project, limit=wrong)
        with pytest.raises(InvalidValue, match="limit"):
            await users.users(ledger.project, limit=wrong)


async def test_a_token_ends_by_itself_and_its_uses_are_on_record(
    ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    credential, secret = await api_tokens.make_token(ledger.project, "ci")
    await access.grant(ledger.project, credential, ["submit"], actors=["ci"])
    [unused] = await api_tokens.tokens(ledger.project)
    assert await connection.fetchval("SELECT ledger.use_token($1)", secret) == credential
    [used] = await api_tokens.tokens(ledger.project)
    assert await connection.fetchval("SELECT ledger.use_token($1)", secret) == credential
    [again] = await api_tokens.tokens(ledger.project)
    await connection.execute("UPDATE ledger.api_token SET expires_at = clock_timestamp()")

    assert await connection.fetchval("SELECT ledger.use_token($1)", secret) is None
    await connection.execute("SELECT set_config('runfold.token', $1, false)", secret)
    with pytest.raises(asyncpg.PostgresError, match="unknown, revoked or past its end") as refused:
        await connection.fetch(SUBMIT, PROJECT)
    await connection.execute("SELECT set_config('runfold.token', '', false)")
    assert await connection.fetchval("SELECT ledger.use_token('runfold_0_unknown')") is None

    assert refused.value.sqlstate == "RF401"
    assert (unused.last_used_at, unused.failed_uses) == (None, 0)
    assert used.last_used_at is not None
    assert again.last_used_at == used.last_used_at  # once a minute at most
    [ended] = await api_tokens.tokens(ledger.project)
    assert (ended.last_used_at, ended.failed_uses) == (used.last_used_at, 1)


async def test_a_token_is_revoked_once_and_a_session_begins_with_no_other(
    ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    credential, secret = await api_tokens.make_token(ledger.project, "ci")
    session = await sessions.by_token(ledger.pool, secret)
    assert session is not None
    assert await sessions.by_token(ledger.pool, session) is None
    for ago, is_noted in (("30 s", False), ("2 min", True)):
        before = await connection.fetchval(
            "UPDATE ledger.web_session SET last_used_at = now() - $1::text::interval"
            " RETURNING last_used_at",
            ago,
        )
        assert await connection.fetchval("SELECT ledger.use_token($1)", session) == credential
        [used] = await sessions.sessions(ledger.project)
        assert (used.last_used_at > before) is is_noted

    assert await api_tokens.revoke_token(ledger.project, credential, reason="lost")
    assert not await api_tokens.revoke_token(ledger.project, credential, reason="again")
    assert await connection.fetchval("SELECT reason FROM ledger.api_token") == "lost"


@pytest.mark.parametrize("credential", ["token:ci", "user:ann"])
async def test_a_login_that_is_named_like_a_token_or_a_user_is_refused(
    ledger: Ledger, database: str, connection: asyncpg.Connection[Any], credential: str
) -> None:
    await access.grant(ledger.project, credential, ["submit", "read"], actors=["ci"])
    run = await ledger.submit("parse", {"marked": "canary"})
    await connection.execute(
        f"CREATE ROLE \"{credential}\" LOGIN PASSWORD 'p' IN ROLE runfold_worker"
    )
    name = name_of(database)
    await connection.execute(f'GRANT CONNECT ON DATABASE {name} TO "{credential}"')
    try:
        forger = await asyncpg.connect(driver_url(as_login(database, quote(credential), "p")))

        for call in (SUBMIT, "SELECT * FROM ledger.commands($1" + ", '{}'" * 12 + ")"):
            with pytest.raises(asyncpg.PostgresError, match="reserved for API tokens") as refused:
                await forger.fetch(call, PROJECT)
            assert refused.value.sqlstate == "RF403"
        for read in ("history($1, $2, 0, true)", "read_run($1, $2)"):
            with pytest.raises(asyncpg.PostgresError, match="reserved for API tokens"):
                await forger.fetch(f"SELECT * FROM ledger.{read}", PROJECT, run.run_id)
        assert await forger.fetch("SELECT * FROM ledger.run") == []
        asked = "SELECT * FROM ledger.read_runs($1, ARRAY[$2::uuid])"
        assert await forger.fetch(asked, PROJECT, run.run_id) == []
        await forger.close()
    finally:
        await connection.execute(f'DROP OWNED BY "{credential}"; DROP ROLE "{credential}"')
