"""Each hole in access is named in one line, and the statement in that line closes it."""

from __future__ import annotations

from typing import Any, Final

import asyncpg
import pytest

from runfold.ledger import Ledger
from runfold.ledger.postgres.access_holes import access_holes
from runfold.ledger.postgres.urls import driver_url
from tests.support.databases import PROJECT
from tests.support.logins import login_of, with_login
from tests.support.waiting import until

MADE: Final = (
    (
        "row security of a month is off",
        "ALTER TABLE ledger.{month} DISABLE ROW LEVEL SECURITY",
        "row security of ledger.{month} is off",
    ),
    (
        "a month with a policy",
        "CREATE POLICY planted ON ledger.{month} USING (true)",
        "policy planted lets logins into ledger.{month} by itself",
    ),
    (
        "a month without a trigger",
        "DROP TRIGGER refuse_truncate ON ledger.{month}",
        "trigger refuse_truncate of ledger.{month} is missing",
    ),
    (
        "a month whose trigger is disabled",
        "ALTER TABLE ledger.{month} DISABLE TRIGGER refuse_change",
        "trigger refuse_change of ledger.{month} is missing, changed or does not always fire",
    ),
    (
        "a month whose trigger fires for replicas only",
        "ALTER TABLE ledger.{month} ENABLE REPLICA TRIGGER refuse_insert",
        "trigger refuse_insert of ledger.{month}",
    ),
    (
        "a month whose trigger is hollow",
        (
            "CREATE OR REPLACE TRIGGER refuse_insert BEFORE INSERT ON ledger.{month} "
            "FOR EACH STATEMENT WHEN (false) EXECUTE FUNCTION ledger.refuse_change();"
            "ALTER TABLE ledger.{month} ENABLE ALWAYS TRIGGER refuse_insert"
        ),
        "trigger refuse_insert of ledger.{month}",
    ),
    (
        "a definer function that names the tables",
        (
            "CREATE FUNCTION public.peek() RETURNS bigint LANGUAGE sql SECURITY DEFINER "
            "AS 'SELECT count(*) FROM ledger.event'; ALTER FUNCTION public.peek() OWNER TO {login}"
        ),
        "function public.peek() runs with the rights of {login} and names the ledger's tables",
    ),
    (
        "a definer function whose body is parsed",
        (
            "CREATE FUNCTION public.peek() RETURNS bigint LANGUAGE sql SECURITY DEFINER "
            "BEGIN ATOMIC SELECT count(*) FROM ledger.event; END"
        ),
        "function public.peek() runs with the rights of",
    ),
    (
        "a definer function of the owner",
        (
            "CREATE FUNCTION public.run(t text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER "
            "AS $$ BEGIN EXECUTE t; END $$"
        ),
        "function public.run(t text) runs with the rights of",
    ),
    (
        "a view of the owner",
        (
            "CREATE VIEW public.every_event AS SELECT * FROM ledger.event; "
            "GRANT SELECT ON public.every_event TO PUBLIC"
        ),
        "view public.every_event reads the ledger's tables with the rights of",
    ),
    (
        "a copy by the owner",
        (
            "CREATE MATERIALIZED VIEW public.copied AS SELECT * FROM ledger.event; "
            "GRANT SELECT ON public.copied TO PUBLIC"
        ),
        "view public.copied reads the ledger's tables with the rights of",
    ),
    (
        "a privilege on tables to come",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA ledger GRANT SELECT ON TABLES TO {login}",
        "{login} will get SELECT on TABLES that",
    ),
    (
        "a privilege on tables of any schema to come",
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC",
        "PUBLIC will get SELECT on TABLES that",
    ),
    (
        "a role that logs in",
        "ALTER ROLE runfold_auditor LOGIN",
        "role runfold_auditor exists to be granted, but logs in",
    ),
    (
        "a role that no policy binds",
        "ALTER ROLE runfold_reader BYPASSRLS",
        "role runfold_reader exists to be granted, but logs in or has powers of its own",
    ),
    (
        "a role in another",
        "GRANT runfold_auditor TO runfold_reader",
        "role runfold_reader has all that runfold_auditor may",
    ),
    (
        "a member of the owner",
        "GRANT {owner} TO {login}",
        "login {login} may act as the ledger's owner",
    ),
    (
        "a member of a member of the owner",
        "CREATE ROLE {login}_team; GRANT {owner} TO {login}_team; GRANT {login}_team TO {login}",
        "login {login} may act as the ledger's owner {owner}, by way of role {login}_team",
    ),
    (
        "a login that no policy binds",
        "ALTER ROLE {login} BYPASSRLS; GRANT runfold_reader TO {login}",
        "login {login} has BYPASSRLS, which no policy binds",
    ),
    (
        "a superuser with a grant",
        (
            "ALTER ROLE {login} SUPERUSER; SELECT ledger.change_access("
            "'test', 'a', '{login}', '{{work}}', NULL, NULL, NULL)"
        ),
        "login {login} has SUPERUSER, which no policy binds",
    ),
    (
        "a login that reads every table",
        "GRANT pg_read_all_data TO {login}",
        "login {login} has pg_read_all_data",
    ),
)


async def holes(connection: asyncpg.Connection[Any]) -> list[tuple[str, str]]:
    return [(one.hole, one.remedy) for one in await access_holes(connection)]


async def test_each_hole_is_named_and_its_remedy_closes_it(
    unverified_database: str, subtests: pytest.Subtests
) -> None:
    connection = await asyncpg.connect(driver_url(unverified_database))
    month = await connection.fetchval("SELECT to_char(now(), '\"event_\"YYYY_MM')")
    owner = await connection.fetchval("SELECT current_user::text")
    async with with_login(unverified_database) as url:
        names = {"month": month, "owner": owner, "login": login_of(url)}
        assert await holes(connection) == []
        for title, statement, expected in MADE:
            with subtests.test(title):
                transaction = connection.transaction()
                await transaction.start()
                try:
                    await connection.execute(statement.format(**names))
                    [(hole, remedy)] = await holes(connection)
                    assert hole.startswith(expected.format(**names))
                    await connection.execute(remedy)
                    assert await holes(connection) == []
                finally:
                    await transaction.rollback()
    await connection.close()


async def test_what_others_may_have_beside_the_ledger_is_no_hole(
    connection: asyncpg.Connection[Any],
) -> None:
    """A function or a view that runs with its caller's rights, and a reader of the caller's own."""
    async with connection.transaction():
        await connection.execute(
            "CREATE FUNCTION public.own() RETURNS bigint LANGUAGE sql "
            "AS 'SELECT count(*) FROM ledger.event';"
            "CREATE VIEW public.invoked WITH (security_invoker) AS SELECT * FROM ledger.event;"
            "GRANT SELECT ON public.invoked TO PUBLIC;"
            "CREATE VIEW public.unread AS SELECT * FROM ledger.event"
        )

        assert await holes(connection) == []


async def test_runs_that_the_owner_holds_are_named_until_it_lets_go(
    ledger: Ledger, connection: asyncpg.Connection[Any], database: str
) -> None:
    await ledger.submit("parse")
    async with (
        with_login(database, "runfold_worker", rights=("work",)) as url,
        Ledger.open(url, PROJECT) as own,
    ):
        [lease] = await own.claim("w:1")
        assert await holes(connection) == []
        await own.release(lease)
    [lease] = await ledger.claim("w:1")
    [(hole, _)] = await holes(connection)
    await ledger.release(lease)

    assert hole.startswith("runs are held by login postgres, which may do all")
    assert await holes(connection) == []


async def test_a_transaction_that_a_login_left_open_is_named_and_its_remedy_ends_it(
    database: str,
    ledger: Ledger,
    connection: asyncpg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    subtests: pytest.Subtests,
) -> None:
    """A grant of what one may only use gives nothing, and holds an entry of the catalogue."""
    run = await ledger.submit("parse")
    monkeypatch.setattr("runfold.ledger.postgres.access_holes.IDLE_SECONDS", 0)
    async with with_login(database, "runfold_worker", rights=("submit",)) as url:
        for left_open in (
            f"SELECT ledger.cancel('test', session_user::text, ARRAY['{run.run_id}'::uuid], NULL)",
            "GRANT EXECUTE ON FUNCTION ledger.submit TO CURRENT_USER",
        ):
            with subtests.test(left_open):
                idler: asyncpg.Connection[Any] = await asyncpg.connect(driver_url(url))
                await idler.execute("BEGIN; SELECT ledger.channel('test')")
                assert await holes(connection) == []
                await idler.execute(left_open)

                [(hole, remedy)] = await holes(connection)

                assert f"process {idler.get_server_pid()} of login {login_of(url)}" in hole
                await connection.execute(remedy)
                await until(lambda: _is_closed(connection))
                idler.terminate()


async def _is_closed(connection: asyncpg.Connection[Any]) -> bool:
    return await holes(connection) == []
