"""API tokens: credentials without a login, with rights of their own."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from runfold.ledger import Ledger, access
from tests.conftest import PROJECT

SUBMIT = (
    "SELECT * FROM ledger.submit($1, 'ci', '{k}', '{null}', '{null}', '{0}', '{null}', '{1}', "
    "'{null}', '{null}', '{null}')"
)


async def test_a_token_has_its_own_rights_whoever_presents_it(
    ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    credential, secret = await access.make_token(ledger.project, "ci")
    await access.grant(ledger.project, credential, ["submit"], actors=["ci"])

    assert await connection.fetchval("SELECT ledger.use_token($1)", secret) == credential
    await connection.execute("SELECT set_config('runfold.token', $1, false)", secret)
    [row] = await connection.fetch(SUBMIT, PROJECT)
    with pytest.raises(asyncpg.PostgresError, match="lacks the right work"):
        await connection.fetch("SELECT * FROM ledger.reap('test', 'reaper', 1)")
    [event] = await ledger.history(row["run_id"])
    assert event.credential == credential

    await access.revoke_token(ledger.project, credential)
    with pytest.raises(asyncpg.PostgresError, match="unknown, revoked or past its end"):
        await connection.fetch(SUBMIT, PROJECT)
    await connection.execute("SELECT set_config('runfold.token', $1, false)", secret + "x")
    with pytest.raises(asyncpg.PostgresError, match="unknown, revoked or past its end"):
        await connection.fetch(SUBMIT, PROJECT)
    await connection.execute("SELECT set_config('runfold.token', '', false)")
    assert await connection.fetchval("SELECT ledger.use_token($1)", secret) is None
    [token] = await access.tokens(ledger.project)
    assert (token.credential, token.failed_uses) == (credential, 1)
    assert secret not in str(await connection.fetch("SELECT * FROM ledger.api_token"))
    assert secret not in str(await connection.fetch("SELECT * FROM ledger.control_event"))


async def test_a_token_is_made_by_an_actor_and_for_a_reason_of_any_allowed_length(
    ledger: Ledger,
) -> None:
    credential, _ = await access.make_token(
        ledger.project, "ci", actor="a" * 200, reason="r" * 2_000
    )

    assert [token.credential for token in await access.tokens(ledger.project)] == [credential]
