"""What a login of another project may try by hand, each refused or without effect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from runfold.console.cli.commands.doctor import examine
from runfold.console.cli.health.check import Level
from runfold.console.cli.kit.session import Session
from runfold.ledger import Ledger, State
from runfold.ledger.archive.attach import attached
from runfold.ledger.archive.export import export
from runfold.ledger.errors import ArchiveRefused
from runfold.ledger.events import NoteAdded
from runfold.ledger.postgres import schema
from runfold.ledger.postgres.at_work import at_work
from runfold.ledger.postgres.urls import driver_url
from runfold.projections.declared.installing import install
from runfold.projections.declared.status import statuses
from runfold.projections.models.counts import RUN_COUNTS
from runfold.projections.models.spending import SPENDING
from runfold.projections.rebuild import Rebuild
from runfold.projections.state.replay import plan
from runfold.projections.telemetry import metrics
from tests.ledger.test_access import calls
from tests.support.databases import PROJECT
from tests.support.logins import grant, login_of, with_login
from tests.support.projections import sizes
from tests.support.runs import claimed
from tests.support.waiting import BOUND, lapsed

OTHER = "other"
REFUSED = (
    "SET ROLE postgres",
    "SET SESSION AUTHORIZATION postgres",
    "SET session_replication_role = replica",
    "GRANT runfold_auditor TO CURRENT_USER",
    "DROP OWNED BY runfold_worker",
    "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA ledger FROM runfold_worker",
    "GRANT CREATE ON SCHEMA ledger TO CURRENT_USER WITH GRANT OPTION; CREATE TABLE ledger.mine ()",
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
    "SELECT sha256 FROM ledger.web_session",
    "SELECT key_sha256 FROM ledger.user_password",
    "SELECT ledger.begin_session('user:ann', sha256(''))",
    "SELECT setval('ledger.event_position', 1)",
    "SELECT nextval('ledger.event_position')",
    "SELECT pg_read_file('postgresql.conf')",
    "SELECT pg_stat_reset()",
    "TABLE ledger.at_work",
    "TABLE ledger.user_password",
    "TABLE ledger.webhook_secret",
    "TABLE ledger.control_event",
    "SELECT * FROM pg_authid",
    "SELECT * FROM pg_hba_file_rules",
    "SELECT pg_ls_dir('.')",
    "SELECT lo_import('/etc/hostname')",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename <> current_user",
    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE usename <> current_user",
    "SELECT pg_create_logical_replication_slot('mine', 'test_decoding')",
    "SELECT pg_switch_wal()",
    "ALTER ROLE runfold_worker SET statement_timeout = 1",
    "ALTER DEFAULT PRIVILEGES FOR ROLE postgres GRANT SELECT ON TABLES TO PUBLIC",
    "ALTER FUNCTION ledger.now() SECURITY DEFINER",
    "CREATE SCHEMA mine",
    "CREATE TABLE public.mine (a int)",
    "CREATE EXTENSION dblink",
    "CREATE EVENT TRIGGER mine ON ddl_command_start EXECUTE FUNCTION ledger.refuse_change()",
    "CREATE TRIGGER mine BEFORE INSERT ON ledger.event EXECUTE FUNCTION ledger.refuse_change()",
    "CREATE RULE mine AS ON DELETE TO ledger.event DO INSTEAD NOTHING",
    "CREATE INDEX ON ledger.run_state (kind)",
    "CREATE STATISTICS pg_temp.mine ON kind, state FROM ledger.run_state",
    "CREATE PUBLICATION mine FOR TABLE ledger.event",
    "CREATE CAST (ledger.event AS text) WITH INOUT AS IMPLICIT",
    "COMMENT ON TABLE ledger.event IS 'mine'",
    "SECURITY LABEL ON TABLE ledger.event IS 'mine'",
    "DO $$ BEGIN EXECUTE 'SET ROLE postgres'; END $$",
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


async def test_what_only_the_owner_may_is_refused(
    attacker: asyncpg.Connection[Any], subtests: pytest.Subtests
) -> None:
    for statement in REFUSED:
        with subtests.test(statement):
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


SHADOWS = """
CREATE FUNCTION public.always(name, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE FUNCTION public.always(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE FUNCTION public.victim(text, name) RETURNS text LANGUAGE sql AS $$ SELECT 'victim' $$;
CREATE FUNCTION public.victim(text, text) RETURNS text LANGUAGE sql AS $$ SELECT 'victim' $$;
CREATE FUNCTION public.concat(text, text) RETURNS text LANGUAGE sql AS $$ SELECT 'victim' $$;
CREATE FUNCTION public.starts_with(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE FUNCTION public.current_setting(text, boolean) RETURNS text LANGUAGE sql AS $$ SELECT '' $$;
CREATE OPERATOR public.~~ (LEFTARG = name, RIGHTARG = text, FUNCTION = public.always);
CREATE OPERATOR public.~~ (LEFTARG = text, RIGHTARG = text, FUNCTION = public.always);
CREATE OPERATOR public.|| (LEFTARG = text, RIGHTARG = name, FUNCTION = public.victim);
CREATE OPERATOR public.|| (LEFTARG = text, RIGHTARG = text, FUNCTION = public.victim);
SET search_path = public, pg_catalog
"""


async def test_no_operator_of_a_logins_own_schema_gives_it_anothers_name(
    connection: asyncpg.Connection[Any], attacker: asyncpg.Connection[Any]
) -> None:
    """As in a database that lets everybody create in the schema `public`."""
    login = await attacker.fetchval("SELECT session_user::text")
    await grant(connection, "victim", ("admin",), project=OTHER)
    await connection.execute(f"GRANT CREATE ON SCHEMA public TO {login}")
    await attacker.execute(SHADOWS)

    assert await attacker.fetchval("SELECT ledger.credential()") == login
    grants = await attacker.fetch("SELECT credential FROM ledger.access_grant")
    assert [row["credential"] for row in grants] == [login]
    assert await attacker.fetch("SELECT FROM ledger.run_state WHERE project_id = 'other'") == []
    await attacker.close()
    await connection.execute(f"DROP OWNED BY {login} CASCADE")


async def test_a_statement_prepared_before_a_revoke_sees_nothing_after_it(
    ledger: Ledger, attacker: asyncpg.Connection[Any], connection: asyncpg.Connection[Any]
) -> None:
    await ledger.submit("parse", {"mine": 1})
    login = await attacker.fetchval("SELECT session_user::text")
    read = await attacker.prepare("SELECT project_id FROM ledger.payload")
    assert [row["project_id"] for row in await read.fetch()] == [PROJECT]

    await grant(connection, login, ())

    assert await read.fetch() == []


APPEND = (
    "SELECT * FROM ledger.append('test', 'm', ARRAY[$1::uuid], NULL, {types}, {versions}, NULL,"
    " NULL, NULL, NULL, NULL, NULL, NULL)"
)
HOOK = (
    "SELECT ledger.change_webhook('test', 'm', NULL, 'add', 'https://m.example', {events}, {kinds},"
    " sha256('m'), false, NULL)"
)
SUBMIT = (
    "SELECT * FROM ledger.submit('test', 'm', {kinds}, NULL, NULL, '{{0}}', NULL, '{{1}}', NULL,"
    " NULL, {tags})"
)
ODD_LISTS = {
    "a type of another dimension": APPEND.format(types="E'{{A\\nb}}'", versions="'{1}'"),
    "a type that is not the first": APPEND.format(types="'[0:0]={A b}'", versions="'{1}'"),
    "a version of another dimension": APPEND.format(types="'{acme.x}'", versions="'{{2}}'"),
    "types and versions": APPEND.format(types="'[0:0]={note.added}'", versions="'[0:0]={9}'"),
    "types of a webhook": HOOK.format(events="'{{A b}}'", kinds="'{}'"),
    "kinds of a webhook": HOOK.format(events="'{}'", kinds="'{{parse}}'"),
    "actors of a grant": (
        "SELECT ledger.change_access('test', 'm', 'm', '{read}', '{{a,b}}', NULL, NULL)"
    ),
    "tags of another dimension": SUBMIT.format(kinds="'{parse}'", tags="'{\"{{a,b}}\"}'"),
    "tags of other bounds": SUBMIT.format(kinds="'{parse}'", tags="'{\"[0:0]={a}\"}'"),
    "kinds of another dimension": SUBMIT.format(kinds="'{{parse}}'", tags="NULL"),
}


async def test_no_list_of_other_bounds_or_dimensions_hides_what_is_in_it(
    ledger: Ledger,
    attacker: asyncpg.Connection[Any],
    connection: asyncpg.Connection[Any],
    subtests: pytest.Subtests,
) -> None:
    login = await attacker.fetchval("SELECT session_user::text")
    await grant(connection, login, ("submit", "work", "admin"))
    run = await ledger.submit("parse")
    for name, statement in ODD_LISTS.items():
        arguments = [run.run_id] if "$1" in statement else []
        with (
            subtests.test(name),
            pytest.raises(asyncpg.InvalidParameterValueError, match="plain list"),
        ):
            await attacker.fetch(statement, *arguments)
    assert [event.type for event in await ledger.history(run.run_id)] == ["run.submitted"]


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


HIDDEN = (
    "SELECT salt FROM ledger.payload UNION SELECT hash FROM ledger.control_head "
    "UNION SELECT hash FROM ledger.control_event "
    "UNION SELECT uuid_send(run_id) FROM ledger.event WHERE project_id = 'other' "
    "UNION SELECT hash FROM ledger.event WHERE project_id = 'other'"
)


async def test_no_plan_that_the_server_prints_to_a_login_holds_what_it_may_not_read(
    ledger: Ledger, attacker: asyncpg.Connection[Any], connection: asyncpg.Connection[Any]
) -> None:
    """A plan has the values of variables, of the owner's functions too, as constants."""
    run = await ledger.submit("parse", {"mine": 1})
    hidden = [as_printed(row[0]) for row in await connection.fetch(HIDDEN)]
    printed: list[str] = []
    attacker.add_log_listener(lambda _, message: printed.append(f"{message} {message.detail}"))
    await attacker.execute("SET client_min_messages = log; SET debug_print_plan = on")
    for statement, arguments in (await calls(run.run_id, PROJECT)).values():
        with suppress(asyncpg.PostgresError):
            async with attacker.transaction():
                await attacker.fetch(statement, *arguments)

    told = "".join("".join(printed).split())  # long lines are cut, within a number, too
    assert as_printed(run.run_id.bytes) in told
    assert len(hidden) > 5
    assert [value for value in hidden if value in told] == []


def as_printed(value: bytes) -> str:
    """Return a value's bytes as a printed plan has them, without its white space."""
    return "".join(str(byte - 256 if byte > 127 else byte) for byte in value)


async def test_no_lock_of_a_worker_stops_an_upgrade_a_rebuild_or_the_archive(
    database: str, ledger: Ledger, attacker: asyncpg.Connection[Any], tmp_path: Path
) -> None:
    """Whatever key was used before is held, and the one in use is waited for."""
    await ledger.submit("parse")
    await attacker.execute(
        "SELECT pg_advisory_lock(hashtextextended('ledger.' || name, 0)), "
        "pg_advisory_lock(hashtext('ledger.' || name), 1) "
        "FROM unnest(ARRAY['upgrade', 'archive', 'archive.attach', 'rebuild']) AS name"
    )
    for table in ("alembic_version", "at_work", "rebuild", "archive_event"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with attacker.transaction():
                await attacker.execute(
                    f"LOCK TABLE ledger.{table} IN SHARE UPDATE EXCLUSIVE MODE NOWAIT"
                )
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await attacker.execute("SELECT ledger.begin_work('archive', true)")

    async with (
        asyncio.timeout(BOUND),
        asyncpg.create_pool(driver_url(database), min_size=1) as pool,
    ):
        for _ in range(2):
            async with pool.acquire() as connection, at_work(connection, "rebuild 1"):
                key = await attacker.fetchval(
                    "SELECT classid::bigint << 32 | objid::bigint FROM pg_locks "
                    "WHERE locktype = 'advisory' AND pid = $1", connection.get_server_pid(),
                )  # fmt: skip
                queued = asyncio.create_task(attacker.execute(f"SELECT pg_advisory_lock({key})"))
            await queued
        async with attached(pool):
            pass
        with pytest.raises(ArchiveRefused) as refused:
            await export(pool, "2020-01", tmp_path, actor="ann")
        await schema.upgrade(database)
        async with Rebuild.begin(pool, plan(PROJECT)):
            pass
    assert "at work" not in str(refused.value)


async def test_a_projector_without_a_right_stops_no_archive(
    database: str, connection: asyncpg.Connection[Any]
) -> None:
    async with with_login(database, "runfold_projector") as url:
        projector = await asyncpg.connect(driver_url(url))
        async with projector.transaction():
            await projector.execute("UPDATE ledger.rebuild SET finished_at = NULL WHERE false")
            for table in ("rebuild IN SHARE MODE", "alembic_version IN ROW SHARE MODE"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    async with projector.transaction():
                        await projector.execute(f"LOCK TABLE ledger.{table}")
            async with asyncio.timeout(BOUND), at_work(connection, "archive"):
                pass
        await projector.close()


LOCKABLE = """
SELECT c.oid::regclass::text FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v') AND n.nspname IN ('ledger', 'projection')
  AND has_table_privilege(c.oid, 'UPDATE, DELETE, TRUNCATE' || CASE
    WHEN current_setting('server_version_num')::int >= 170000 THEN ', MAINTAIN' ELSE '' END)
"""
HELD = (
    "SELECT FROM ledger.projection FOR UPDATE",
    "SELECT FROM ledger.rebuild FOR UPDATE",
    "LOCK TABLE ledger.projection, ledger.projection_aside, ledger.rebuild IN ROW EXCLUSIVE MODE",
    "LOCK TABLE ledger.rebuild_range, projection.sizes_v1 IN ROW EXCLUSIVE MODE",
    "SELECT ledger.drop_projection_tables('run_counts', true)",
)
"""The strongest locks that a projector can take."""


async def test_no_lock_that_a_projector_can_take_stops_any_run_or_what_tells_of_it(
    ledger: Ledger, database: str
) -> None:
    lapsing = await claimed(ledger, "w:1", ttl=0.2)
    async with (
        with_login(database, "runfold_projector", rights=("read",), project="*") as own_url,
        with_login(database, "runfold_worker", rights=("submit", "work", "read", "admin")) as url,
        Ledger.open(own_url, PROJECT) as projecting,
        Ledger.open(url, PROJECT) as worker,
    ):
        for projection in (RUN_COUNTS, SPENDING, sizes()):
            await install(projecting.pool, projection)
        projector = await asyncpg.connect(driver_url(own_url))
        assert await projector.fetch(LOCKABLE) == []
        async with projector.transaction():
            for statement in HELD:
                await projector.execute(statement)
            async with asyncio.timeout(BOUND):
                await lapsed(ledger, lapsing)
                assert len(await worker.reap()) == 1
                run = await worker.submit("page", {"a": 1})
                [lease] = await worker.claim("w:2", kinds=["page"])
                await worker.heartbeat([lease])
                await worker.append(lease, NoteAdded(text="read"))
                await worker.complete(lease, {"b": 2})
                await worker.cancel(lapsing.run_id)
                await worker.pause_kind("page")
                assert (await worker.get(run.run_id)).state == State.COMPLETED
                assert len(await worker.runs()) == 2
                assert await worker.history(run.run_id)
                assert [status.name for status in await statuses(ledger.pool, {})] == [
                    "run_counts", "sizes", "spending",
                ]  # fmt: skip
                month = f"{datetime.now(UTC):%Y-%m}"
                assert "the month is not over" in (await ledger.archive.plan(month)).obstacles
                read = await metrics.look(ledger.pool)
        await projector.close()

    assert {row["name"]: row["locked"] for row in read["locked"]} == {
        "run_counts": True,
        "spending": False,
    }
    assert "spending" in read
    assert "run_counts" not in read


async def test_who_leaves_open_that_it_began_work_is_named(
    database: str, connection: asyncpg.Connection[Any]
) -> None:
    async with with_login(database, "runfold_projector", rights=("read",), project="*") as url:
        projector = await asyncpg.connect(driver_url(url))
        async with projector.transaction():
            await projector.execute("SELECT ledger.begin_work('mine', true)")
            with pytest.raises(asyncpg.LockNotAvailableError) as refused:
                await connection.execute("SELECT ledger.begin_work('archive', false)")
            pid = projector.get_server_pid()
        await projector.close()

    assert f"process {pid}, login {login_of(url)}" in str(refused.value)
    assert f"SELECT pg_terminate_backend({pid})" in str(refused.value)


async def test_no_lock_of_another_database_keeps_up_work_that_has_ended(
    database: str, connection: asyncpg.Connection[Any]
) -> None:
    """A process of the server may have the number of one that was at work, and take its key."""
    other_database = urlsplit(driver_url(database))._replace(path="/postgres").geturl()
    elsewhere = await asyncpg.connect(other_database)
    await elsewhere.execute("SELECT pg_advisory_lock(42)")
    await connection.execute(
        "INSERT INTO ledger.at_work (name, shared, pid, key) VALUES ('archive', false, $1, 42)",
        elsewhere.get_server_pid(),
    )

    async with at_work(connection, "archive"):
        pass

    await elsewhere.close()


async def test_doctor_ends_beside_locked_tables_and_names_who_locks_them(
    ledger: Ledger, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runfold.ledger.postgres.access_holes.IDLE_SECONDS", 0)
    assert await ledger.runs() == []
    owner = await asyncpg.connect(driver_url(database))
    async with asyncio.timeout(BOUND), owner.transaction():
        await owner.execute("LOCK TABLE ledger.rebuild, ledger.projection IN ACCESS EXCLUSIVE MODE")
        checks = await examine(Session(database, PROJECT, as_json=False, verbose=False))
        pid = owner.get_server_pid()
    await owner.close()

    failed = {check.name: check.detail for check in checks if check.level == Level.FAILED}
    assert "stayed locked" in failed["objects"]
    holder = f"process {pid} of login"
    assert [check for check in checks if holder in check.detail]


READS_ALL = (
    "SELECT salt FROM ledger.payload",
    "SELECT sha256 FROM ledger.api_token",
    "SELECT * FROM ledger.control_event",
)
WRITES = (
    "INSERT INTO ledger.event SELECT * FROM ledger.event",
    "UPDATE ledger.run_state SET state = 'completed'",
    "DELETE FROM ledger.payload",
    "INSERT INTO ledger.project (project_id) VALUES ('mine')",
    "LOCK TABLE ledger.run_state IN SHARE MODE",
)
CALLS = (
    "SELECT * FROM ledger.claim('test', 'w', NULL, 1, '1 min')",
    "SELECT * FROM ledger.cancel('test', 'w', '{}', NULL)",
    "SELECT ledger.change_access('test', 'w', 'w', '{work}', NULL, NULL, NULL)",
)
PROJECTS = (
    "INSERT INTO ledger.projection_skip SELECT * FROM ledger.projection_skip",
    "SELECT ledger.drop_projection_tables('sizes')",
    "CREATE TABLE projection.mine (a int)",
)
CANNOT = {
    "runfold_worker": READS_ALL + WRITES + PROJECTS,
    "runfold_projector": READS_ALL + WRITES + CALLS + PROJECTS[2:],
    "runfold_reader": READS_ALL + WRITES + CALLS + PROJECTS,
    "runfold_auditor": WRITES + CALLS + PROJECTS,
}


async def test_no_grant_gives_a_role_what_the_page_says_that_it_cannot(
    ledger: Ledger, database: str, subtests: pytest.Subtests
) -> None:
    """Each login has every right in every project, and one role."""
    await ledger.submit("parse", {"a": 1})
    rights = ("submit", "work", "read", "decide", "schedule", "audit", "admin")
    for role, statements in CANNOT.items():
        async with with_login(database, role, rights=rights, project="*") as url:
            connection = await asyncpg.connect(driver_url(url))
            assert await connection.fetchval("SELECT count(*) FROM ledger.run") == 1
            for statement in statements:
                with (
                    subtests.test(f"{role}: {statement[:40]}"),
                    pytest.raises(asyncpg.InsufficientPrivilegeError),
                ):
                    async with connection.transaction():
                        await connection.execute(statement)
            await connection.close()
