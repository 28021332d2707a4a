"""What roles and databases are set to does not change what the ledger's statements mean."""

from __future__ import annotations

import asyncpg

from runfold.ledger import Ledger
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
