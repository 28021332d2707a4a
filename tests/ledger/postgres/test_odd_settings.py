"""What roles and databases are set to does not change what the ledger's statements mean."""

from __future__ import annotations

import asyncpg
import pytest

from runfold.ledger import Ledger
from runfold.ledger.errors import AccessDenied
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.postgres.errors import translated
from tests.conftest import PROJECT
from tests.support.logins import login_of, with_login

ODD = (
    "standard_conforming_strings = off",
    "row_security = off",
    "default_transaction_isolation = 'serializable'",
    "search_path = 'nowhere'",
    "array_nulls = off",
    "transform_null_equals = on",
    "bytea_output = 'escape'",
    "extra_float_digits = -15",
    "TimeZone = 'Asia/Kathmandu'",
    "DateStyle = 'SQL, DMY'",
    "IntervalStyle = 'sql_standard'",
    "client_encoding = 'LATIN1'",
    "client_min_messages = 'debug5'",
)


async def test_a_login_of_odd_settings_works_and_the_ledger_reads_as_ever(
    ledger: Ledger, database: str, connection: asyncpg.Connection
) -> None:
    rights = ("submit", "work", "read")
    async with with_login(database, "runfold_worker", rights=rights) as url:
        for setting in ODD:
            await connection.execute(f"ALTER ROLE {login_of(url)} SET {setting}")

        async with Ledger.open(url, PROJECT) as odd:
            run = await odd.submit("parse", {"text": "ü\\u00e4'\\"}, tags=["a b"], key="k")
            [lease] = await odd.claim("worker", kinds=["parse"])
            await odd.heartbeat([lease])
            await odd.complete(lease, output=[0.1, None, "\\"], cost_usd_delta=0.1)

        done = await ledger.get(run.run_id)
        assert (done.input, done.output) == ({"text": "ü\\u00e4'\\"}, [0.1, None, "\\"])
        assert [event.type for event in await ledger.history(run.run_id)] == [
            "run.submitted", "lease.acquired", "lease.heartbeat", "run.completed",
        ]  # fmt: skip


async def test_a_session_without_row_security_is_told_how_to_have_it(
    database: str, connection: asyncpg.Connection
) -> None:
    async with with_login(database, "runfold_worker", rights=("read",)) as url:
        await connection.execute(f"SET SESSION AUTHORIZATION {login_of(url)}")
        await connection.execute("SET row_security = off")
        with pytest.raises(AccessDenied, match="ALTER ROLE login SET row_security = on"):
            await fetch(connection, "SELECT * FROM ledger.project")
        await connection.execute("RESET SESSION AUTHORIZATION")


def test_a_standby_that_is_asked_to_write_says_what_it_is() -> None:
    error = asyncpg.ObjectNotInPrerequisiteStateError("cannot execute nextval() during recovery")

    assert "this server is a standby: give the URL of the primary" in str(translated(error))
