"""What roles and databases are set to does not change what the ledger's statements mean."""

from __future__ import annotations

import re
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

import runfold.ledger
from runfold.ledger import Ledger
from runfold.ledger.errors import AccessDenied, DatabaseUnavailable
from runfold.ledger.postgres.connections import connect, fetch
from runfold.ledger.postgres.errors import translated
from runfold.ledger.postgres.urls import driver_url
from tests.support.databases import PROJECT
from tests.support.logins import login_of, with_login
from tests.support.waiting import until

SQL = Path(runfold.ledger.__file__).parent / "sql"
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


async def test_a_caller_does_not_choose_where_tables_of_the_ledger_lie(
    connection: asyncpg.Connection,
) -> None:
    place = f"place_{uuid4().hex}"
    await connection.execute("SET allow_in_place_tablespaces = on")
    await connection.execute(f"CREATE TABLESPACE {place} LOCATION ''")
    try:
        await connection.execute(f"SET default_tablespace = {place}")
        assert await connection.fetchval("SELECT ledger.make_partitions(4)") == 1
        await connection.execute(
            "SELECT ledger.make_projection_table('sizes_v1', '{n}', '{int}', '{n}', '{n}')"
        )
        assert await connection.fetchval(
            "SELECT count(*) FROM pg_class WHERE reltablespace = "
            "(SELECT oid FROM pg_tablespace WHERE spcname = $1)",
            place,
        ) == 0  # fmt: skip
    finally:
        await connection.execute(f"DROP TABLESPACE {place}")


PROBES = {
    "SELECT run_id IS NULL FROM ledger.submit('test', $1, '{parse}', NULL, NULL, '{0}', NULL,"
    " '{3}', NULL, NULL, NULL)": {"ann": True, "a\x1bn": False, " ann": False},
    "SELECT ledger.check_types(ARRAY[$1::text], '{1}')": {"a.b": True, "a/b": False},
    "SELECT 1 FROM ledger.change_webhook('test', 'ann', NULL, 'add', $1, '{}', '{}',"
    " sha256('x'), false, NULL)": {
        "http://127.0.0.1/x": True, "http://127a0b0c1/x": False, "http://1/x": False,
    },
    "SELECT ledger.check_derived($1, '{n}')": {
        "n + 1.5": True, "n\\": False, "n is distinct from 1": True, "sleep(1)": False,
    },
    "SELECT ledger.check_content(ARRAY[$1])": {
        r'{"a": "\u00fc"}': True, r'{"a": "\u0000"}': False, r'{"\ud83d": 1}': False,
    },
    "SELECT ledger.person($1)": {"JO  Stra\u00df\u2060e": True},
    "SELECT encode(ledger.event_hash('x', $1, uuid_nil, 1, timestamptz '2026-01-01Z', 'a.b', 'c'),"
    " 'hex') FROM (VALUES (uuid '00000000-0000-0000-0000-000000000000')) AS v (uuid_nil)": {
        "test": True
    },
    "SELECT encode(ledger.payload_hash('salt', $1), 'hex')": {"{}": True},
}  # fmt: skip
"""Calls, and values that each of them takes or refuses."""


async def verdicts(url: str, setting: str) -> dict[tuple[str, str], object]:
    """Return what each probe says to a session of somebody's own with the setting."""
    said: dict[tuple[str, str], object] = {}
    own = await asyncpg.connect(url)
    try:
        await own.execute(f"SET {setting}")
        for probe, value in [
            (probe, value) for probe, values in PROBES.items() for value in values
        ]:
            transaction = own.transaction(isolation="read_committed")
            await transaction.start()
            try:
                said[probe, value] = [tuple(row) for row in await own.fetch(probe, value)]
            except asyncpg.PostgresError as error:
                said[probe, value] = error.sqlstate
            await transaction.rollback()
    finally:
        await own.close()
    return said


async def test_functions_say_the_same_whatever_a_caller_has_set(
    ledger: Ledger, database: str, subtests: pytest.Subtests
) -> None:
    await ledger.submit("parse")
    plain = await verdicts(driver_url(database), "TimeZone = 'UTC'")
    for (probe, value), answer in plain.items():
        assert isinstance(answer, list) == PROBES[probe][value], (probe, value, answer)
    for setting in ODD:
        if not setting.startswith("client_encoding"):  # which changes what was asked
            with subtests.test(setting):
                assert await verdicts(driver_url(database), setting) == plain


def test_no_literal_of_a_function_depends_on_a_setting_of_the_caller() -> None:
    literal = re.compile(r"--[^\n]*|(U&|\bE)?'((?:[^']|'')*)'")
    for path in sorted(SQL.rglob("*.sql")):
        for prefix, text in literal.findall(path.read_text()):
            assert prefix == "E" or not (prefix or "\\" in text), (path.name, text)


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


async def test_a_limit_of_the_login_that_ends_a_statement_or_a_session_is_named(
    database: str,
) -> None:
    own = await connect(database, "test")
    await own.execute("SET statement_timeout = 1")
    with pytest.raises(DatabaseUnavailable, match="ALTER ROLE login SET statement_timeout"):
        await fetch(own, "SELECT pg_sleep(1)")
    await own.execute("SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 1")
    await own.execute("BEGIN")
    await until(own.is_closed)
    with pytest.raises(DatabaseUnavailable, match="idle_in_transaction_session_timeout"):
        await fetch(own, "SELECT 1")
