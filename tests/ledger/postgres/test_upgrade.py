"""Upgrades: beside a working fleet, of databases that no ledger can be in, and of damaged ones."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from functools import partial
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from runfold.ledger import Ledger
from runfold.ledger.errors import ConfigurationError, DatabaseUnavailable, LockTimeout
from runfold.ledger.postgres import connections, locks, revisions, schema, upgrade_lock
from runfold.ledger.postgres.installation import refuse_unfit
from runfold.ledger.postgres.installed_objects import installed
from runfold.ledger.postgres.server_roles import ROLES
from runfold.ledger.postgres.urls import driver_url
from runfold.projections import Projection, count, install
from tests.support.console import Cli
from tests.support.databases import PROJECT, sqlalchemy_url, with_database
from tests.support.logins import with_login
from tests.support.proxy import proxied
from tests.support.server import Server
from tests.support.waiting import BOUND, awaited, until

OTHER_DIGEST = "COMMENT ON SCHEMA ledger IS 'functions of older code'"


@pytest.fixture
def ascii_database(server: Server, maintenance: Callable[[str], None]) -> Iterator[str]:
    """The URL of a database whose encoding is SQL_ASCII."""
    name = f"test_{uuid4().hex[:12]}"
    odd = "ENCODING 'SQL_ASCII' LOCALE_PROVIDER libc LOCALE 'C'"
    maintenance(f"CREATE DATABASE {name} TEMPLATE template0 {odd}")
    yield with_database(server.url, name)
    maintenance(f"DROP DATABASE {name} WITH (FORCE)")


async def test_a_database_that_is_not_utf8_is_refused_at_upgrade_and_open(
    ascii_database: str,
) -> None:
    with pytest.raises(ConfigurationError, match=r"SQL_ASCII.*UTF8"):
        await schema.upgrade(ascii_database)
    with pytest.raises(ConfigurationError, match=r"SQL_ASCII.*UTF8"):
        async with Ledger.open(ascii_database):
            pass


async def test_a_schema_that_another_role_made_first_is_refused(empty_database: str) -> None:
    role = f"squatter_{uuid4().hex[:8]}"
    connection = await asyncpg.connect(driver_url(empty_database))
    await connection.execute(f"CREATE ROLE {role}; CREATE SCHEMA ledger AUTHORIZATION {role}")
    try:
        with pytest.raises(ConfigurationError, match=f"schema ledger of {role}"):
            await schema.upgrade(empty_database)
        assert await connection.fetchval("SELECT to_regclass('ledger.event')") is None
    finally:
        await connection.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")
        await connection.close()


async def test_a_role_that_may_make_no_schema_is_told_what_it_lacks(empty_database: str) -> None:
    engine = create_async_engine(sqlalchemy_url(empty_database), poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.exec_driver_sql("SET ROLE pg_monitor")
        with pytest.raises(ConfigurationError, match=r"GRANT CREATE ON DATABASE \w+ TO pg_monitor"):
            await refuse_unfit(connection)
    await engine.dispose()


async def test_an_object_of_another_role_in_the_schema_is_refused(unverified_database: str) -> None:
    role = f"squatter_{uuid4().hex[:8]}"
    connection = await asyncpg.connect(driver_url(unverified_database))
    await connection.execute(f"CREATE ROLE {role}; ALTER FUNCTION ledger.now() OWNER TO {role}")
    try:
        with pytest.raises(ConfigurationError, match=rf"now\(\) of {role}"):
            await schema.upgrade(unverified_database)
    finally:
        await connection.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")
        await connection.close()


@pytest.mark.parametrize(
    "planted",
    [
        "CREATE SCHEMA projection; ALTER SCHEMA projection OWNER TO pg_monitor",
        (
            "CREATE SCHEMA projection; CREATE TABLE projection.counts_v1 (); "
            "ALTER TABLE projection.counts_v1 OWNER TO pg_monitor"
        ),
    ],
)
async def test_a_schema_for_projections_of_another_role_is_refused(
    empty_database: str, planted: str
) -> None:
    connection = await asyncpg.connect(driver_url(empty_database))
    await connection.execute(planted)
    await connection.close()

    with pytest.raises(ConfigurationError, match="of pg_monitor"):
        await schema.upgrade(empty_database)


@pytest.mark.parametrize("right", ["LOGIN", "CREATEROLE", "BYPASSRLS"])
async def test_a_role_that_somebody_made_before_with_rights_of_its_own_is_refused(
    database: str, right: str
) -> None:
    engine = create_async_engine(sqlalchemy_url(database), poolclass=NullPool)
    async with engine.connect() as connection:
        for role in ROLES:
            await connection.exec_driver_sql(f"ALTER ROLE {role} {right}")
            with pytest.raises(ConfigurationError, match=role):
                await refuse_unfit(connection)
            await connection.rollback()
    await engine.dispose()


async def test_a_schema_of_that_name_that_is_no_ledger_is_left_alone(empty_database: str) -> None:
    connection = await asyncpg.connect(driver_url(empty_database))
    await connection.execute("CREATE SCHEMA ledger; CREATE TABLE ledger.account (number int)")

    with pytest.raises(ConfigurationError, match="account"):
        await schema.upgrade(empty_database)

    assert await connection.fetchval("SELECT to_regclass('ledger.event')") is None
    await connection.close()


async def test_a_projection_is_no_reason_to_install_anything_again(database: str) -> None:
    async with Ledger.open(database, PROJECT) as ledger:
        before = (await installed(ledger.pool)).fingerprint()
        await install(
            ledger.pool,
            Projection("of_actors", key={"actor": "actor"}, columns={"events": count()}),
        )
        assert (await installed(ledger.pool)).fingerprint() == before


async def test_an_upgrade_with_nothing_to_do_waits_for_no_transaction(database: str) -> None:
    connection = await asyncpg.connect(driver_url(database))
    async with connection.transaction():
        await connection.execute("LOCK TABLE ledger.event, ledger.payload IN ROW EXCLUSIVE MODE")
        await connection.execute("SELECT FROM ledger.run, ledger.entry LIMIT 0")

        await asyncio.wait_for(schema.upgrade(database), BOUND)
    await connection.close()


async def test_an_upgrade_that_replaces_functions_waits_for_no_transaction(
    database: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = "SELECT md5(prosrc) FROM pg_proc WHERE oid = to_regproc('ledger.heartbeat')"
    now = await connection.fetchval(body)
    with monkeypatch.context() as older:
        older.setattr(schema, "sql", older_sql)
        older.setattr(schema, "digest", lambda: "functions sha256:0")
        await schema.upgrade(database)
    assert await connection.fetchval(body) != now
    async with connection.transaction(), Ledger.open(database, PROJECT) as ledger:
        await ledger.submit("parse", connection=connection)
        await connection.execute("SELECT FROM ledger.run, ledger.entry LIMIT 0")

        await asyncio.wait_for(schema.upgrade(database), BOUND)

        assert await connection.fetchval(body) == now
        await ledger.submit("parse")
    grants = "SELECT has_function_privilege('runfold_worker', p.oid, 'EXECUTE') FROM pg_proc AS p "
    assert await connection.fetchval(f"{grants} WHERE p.oid = to_regproc('ledger.heartbeat')")


def older_sql(name: str) -> str:
    """Return the files of a release in which one function was another."""
    text = sql(name)
    return text.replace("BEGIN\n", "BEGIN\n  -- older\n", 1) if name.endswith("heartbeat") else text


sql = schema.sql


async def test_an_upgrade_gives_up_in_time_and_lets_the_fleet_work(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "LOCK_TIMEOUT", "100ms")
    monkeypatch.setattr(locks, "FIRST_PAUSE_SECONDS", 0.01)
    connection = await asyncpg.connect(driver_url(database))
    await connection.execute(OTHER_DIGEST)
    async with connection.transaction(), Ledger.open(database, PROJECT) as ledger:
        await connection.execute("LOCK TABLE ledger.event IN ROW EXCLUSIVE MODE")
        upgrade = asyncio.create_task(schema.upgrade(database))
        while not upgrade.done():
            await asyncio.wait_for(ledger.submit("parse"), BOUND)

        holder = rf"process {connection.get_server_pid()} \(.*, login postgres\), in a transaction"
        with pytest.raises(LockTimeout, match=f"5 tries of 100ms, by {holder} since .*: end it"):
            await upgrade
    await schema.upgrade(database)
    comment = "SELECT obj_description('ledger'::regnamespace, 'pg_namespace')"
    assert await connection.fetchval(comment) == schema.digest()
    await connection.close()


async def test_an_upgrade_that_may_not_even_read_names_who_keeps_it_from_it(
    database: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "LOCK_TIMEOUT", "100ms")
    monkeypatch.setattr(locks, "FIRST_PAUSE_SECONDS", 0)
    digest = await connection.fetchval("SELECT obj_description('ledger'::regnamespace)")
    await connection.execute("COMMENT ON SCHEMA ledger IS 'of another program'")
    async with connection.transaction():
        await connection.execute("LOCK TABLE ledger.event")
        with pytest.raises(LockTimeout, match=f"by process {connection.get_server_pid()} .*: end"):
            await schema.upgrade(database)
    await connection.execute(f"COMMENT ON SCHEMA ledger IS '{digest}'")


async def test_an_upgrade_that_a_grant_without_effect_holds_up_says_who_can_name_its_login(
    database: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every login can leave open a grant of what it may use, and the server says whose it is."""
    monkeypatch.setattr(locks, "LOCK_TIMEOUT", "100ms")
    monkeypatch.setattr(locks, "FIRST_PAUSE_SECONDS", 0)
    await connection.execute(OTHER_DIGEST)
    async with with_login(database, "runfold_worker", rights=("submit",)) as url:
        login = await asyncpg.connect(driver_url(url))
        async with login.transaction():
            await login.execute("GRANT EXECUTE ON FUNCTION ledger.submit TO CURRENT_USER")
            with pytest.raises(LockTimeout, match="`runfold doctor` names who leaves"):
                await schema.upgrade(database)
        await login.close()
    await schema.upgrade(database)


@pytest.fixture
def persistent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have upgrades try until the test lets them."""
    monkeypatch.setattr(locks, "TRIES", 10_000)
    monkeypatch.setattr(locks, "FIRST_PAUSE_SECONDS", 0)


@pytest.mark.usefixtures("persistent")
async def test_an_upgrade_that_meets_a_short_lock_or_another_change_tries_again(
    database: str, connection: asyncpg.Connection, subtests: pytest.Subtests
) -> None:
    for meanwhile in (
        "LOCK TABLE ledger.payload IN ROW EXCLUSIVE MODE",
        "GRANT EXECUTE ON FUNCTION ledger.now TO pg_monitor",
        "DROP FUNCTION ledger.heartbeat",
    ):
        with subtests.test(meanwhile):
            await connection.execute(OTHER_DIGEST)
            async with connection.transaction():
                await connection.execute(meanwhile)
                upgrade = asyncio.create_task(schema.upgrade(database))
                await awaited(connection)
            await upgrade


async def test_an_upgrade_whose_connection_ends_says_so_and_the_next_one_does_it(
    database: str, connection: asyncpg.Connection, subtests: pytest.Subtests
) -> None:
    digest = "SELECT obj_description('ledger'::regnamespace, 'pg_namespace')"
    for statement in (
        b"SELECT current_setting('server_encoding')",  # before the first try
        b"COMMENT ON TABLE ledger.alembic_version",  # the last of the transaction
        b"SELECT (SELECT index.indisvalid",  # after it
    ):
        with subtests.test(statement.decode()):
            await connection.execute(OTHER_DIGEST)
            async with proxied(database) as proxy:
                proxy.lose_answers(statement, 1)
                with pytest.raises(DatabaseUnavailable):
                    await schema.upgrade(proxy.url)
                assert proxy.lost == 1
            await schema.upgrade(database)
            assert await connection.fetchval(digest) == schema.digest()


@pytest.mark.usefixtures("persistent")
async def test_between_its_tries_an_upgrade_waits_for_what_it_missed_and_holds_nothing(
    database: str, connection: asyncpg.Connection
) -> None:
    name = await connection.fetchval("SELECT current_database()")
    await connection.execute(f"ALTER DATABASE {name} SET deadlock_timeout = '20ms'")
    await connection.execute(OTHER_DIGEST)
    patient = """
SELECT FROM pg_locks AS waits WHERE waits.relation = 'ledger.run_state'::regclass
  AND NOT waits.granted AND NOT EXISTS (SELECT FROM pg_locks AS has
    WHERE has.pid = waits.pid AND has.granted AND has.mode = 'AccessExclusiveLock')
"""
    async with connection.transaction():
        await connection.execute("LOCK TABLE ledger.run_state IN ROW EXCLUSIVE MODE")
        upgrade = asyncio.create_task(schema.upgrade(database))

        await until(lambda: connection.fetch(patient))
    await upgrade


async def test_nobody_is_ended_for_a_deadlock_with_an_upgrade(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(OTHER_DIGEST)
    holder = await asyncpg.connect(driver_url(database))
    holding = holder.transaction()
    await holding.start()
    await holder.execute("LOCK TABLE ledger.run_state IN ROW EXCLUSIVE MODE")
    waiting = (
        "SELECT FROM pg_locks WHERE NOT granted AND mode LIKE '%Exclusive%' AND database = "
        "(SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    async with Ledger.open(database, PROJECT) as ledger, connection.transaction():
        await connection.execute("SELECT FROM ledger.role_member LIMIT 0")
        upgrade = asyncio.create_task(schema.upgrade(database))
        await until(lambda: ledger.pool.fetch(waiting))
        submitted = asyncio.create_task(ledger.submit("parse", connection=connection))
        waits = "SELECT cardinality(pg_blocking_pids($1)) > 0"
        writer = connection.get_server_pid()

        async def is_blocked_or_done() -> bool:
            return submitted.done() or bool(await ledger.pool.fetchval(waits, writer))

        await until(is_blocked_or_done)
        await holding.rollback()

        await submitted
    await upgrade
    await holder.close()


async def test_an_upgrade_that_waits_for_another_names_it_when_it_gives_up(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upgrade_lock, "WAIT_SECONDS", 0.3)
    holder = await asyncpg.connect(
        driver_url(database), server_settings={"application_name": "deploy 7"}
    )
    async with upgrade_lock.upgrade_lock(holder):
        with pytest.raises(
            DatabaseUnavailable, match=rf"process {holder.get_server_pid()} \(deploy 7, login"
        ):
            await asyncio.wait_for(schema.upgrade(database), BOUND)
    await schema.upgrade(database)
    await holder.close()


INDEXES = {
    "event_newer": "CREATE INDEX event_newer ON ledger.event (project_id, type, run_id);",
    "run_newer": "CREATE UNIQUE INDEX run_newer ON ledger.run_state (run_id, project_id);",
}


@pytest.fixture
def with_indexes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this code declare two indexes more, one of them on the partitioned table."""
    monkeypatch.setattr(schema, "indexes", lambda: tuple(INDEXES.values()))


async def broken_indexes(connection: asyncpg.Connection) -> list[str]:
    """Name the indexes of the ledger that are invalid, and those that are missing."""
    rows = await connection.fetch(
        "SELECT n.name FROM unnest($1::text[]) AS n (name) LEFT JOIN pg_index AS i "
        "ON i.indexrelid = to_regclass('ledger.' || n.name) WHERE i.indisvalid IS NOT TRUE "
        "UNION SELECT c.relname FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid "
        "WHERE c.relnamespace = 'ledger'::regnamespace AND NOT i.indisvalid",
        list(INDEXES),
    )
    return [row["name"] for row in rows]


@pytest.mark.usefixtures("with_indexes")
async def test_indexes_are_built_beside_writers_and_in_the_partitions_to_come(
    database: str, connection: asyncpg.Connection
) -> None:
    async with Ledger.open(database, PROJECT) as ledger:
        upgrade = asyncio.create_task(schema.upgrade(database))
        while not upgrade.done():
            await asyncio.wait_for(ledger.submit("parse"), BOUND)

    assert (await upgrade).built_indexes == tuple(INDEXES)
    assert (await schema.upgrade(database)).built_indexes == ()
    await connection.execute("SELECT ledger.make_partitions(5)")
    assert await broken_indexes(connection) == []


@pytest.mark.slow
@pytest.mark.usefixtures("with_indexes")
async def test_a_build_may_take_longer_than_other_statements(
    database: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections.connect, "__kwdefaults__", {"prepared": True, "deadline": 4})
    building = (
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE 'CREATE%INDEX CONCURRENTLY%' "
        "AND wait_event_type = 'Lock' AND clock_timestamp() - query_start > interval '5 s'"
    )
    writer = await asyncpg.connect(driver_url(database))
    async with writer.transaction():
        await writer.execute("LOCK TABLE ledger.run_state IN ROW EXCLUSIVE MODE")
        upgrade = asyncio.create_task(schema.upgrade(database))
        await until(lambda: upgrade.done() or connection.fetchval(building))
        assert not upgrade.done(), upgrade.result()

    assert "run_newer" in (await upgrade).built_indexes
    await writer.close()


@pytest.mark.usefixtures("with_indexes")
async def test_an_index_that_a_build_left_invalid_is_named_and_built_anew(
    database: str, connection: asyncpg.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Ledger.open(database, PROJECT) as ledger:
        await ledger.submit_many([{"kind": "parse"}] * 2)
    partition = await connection.fetchval(
        "SELECT tableoid::regclass::text FROM ledger.event LIMIT 1"
    )
    part = f"{partition.removeprefix('ledger.')}_event_newer"
    for statement in (
        "CREATE UNIQUE INDEX CONCURRENTLY run_newer ON ledger.run_state (kind)",
        f"CREATE UNIQUE INDEX CONCURRENTLY {part} ON {partition} (type)",
    ):
        with pytest.raises(asyncpg.UniqueViolationError):
            await connection.execute(statement)
    doctor = await asyncio.to_thread(Cli(database, capsys), "doctor")
    assert "run_newer is invalid" in doctor.out
    assert "event_newer is missing" in doctor.out

    assert (await schema.upgrade(database)).built_indexes == tuple(INDEXES)

    assert await broken_indexes(connection) == []


async def test_an_index_of_the_ledger_that_somebody_dropped_is_named_and_built_again(
    database: str, connection: asyncpg.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    dropped = ("event_feed", "run_due")
    definition = "SELECT pg_get_indexdef('ledger.run_due'::regclass)"
    before = await connection.fetchval(definition)
    for name in dropped:
        await connection.execute(f"DROP INDEX ledger.{name}")

    doctor = await asyncio.to_thread(Cli(database, capsys), "doctor")
    assert all(f"ledger.{name} is missing" in doctor.out for name in dropped)

    assert (await schema.upgrade(database)).built_indexes == dropped
    assert await connection.fetchval(definition) == before
    assert await connection.fetchval(
        "SELECT indisvalid FROM pg_index WHERE indexrelid = 'ledger.event_feed'::regclass"
    )


async def test_an_index_that_somebody_else_is_at_is_waited_for_and_nobody_is_ended(
    database: str, connection: asyncpg.Connection, subtests: pytest.Subtests
) -> None:
    due, feed = [
        await connection.fetchval(f"SELECT pg_get_indexdef('ledger.{name}'::regclass)")
        for name in ("run_due", "event_feed")
    ]
    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('ledger.{}')"
    waiting = "SELECT FROM pg_locks WHERE NOT granted AND $1 = ANY (pg_blocking_pids(pid))"
    somebody = await asyncpg.connect(
        driver_url(database), server_settings={"deadlock_timeout": "1ms"}
    )
    holder = await asyncpg.connect(driver_url(database))
    for before, statement in (
        ("DROP INDEX ledger.run_due", due.replace("INDEX", "INDEX CONCURRENTLY")),
        ("SELECT", "DROP INDEX CONCURRENTLY ledger.run_due"),
    ):
        with subtests.test(statement):
            await connection.execute(before)
            async with holder.transaction():
                await holder.execute("LOCK TABLE ledger.run_state IN ROW EXCLUSIVE MODE")
                theirs = asyncio.create_task(somebody.execute(statement))
                await awaited(holder)
                upgrade = asyncio.create_task(schema.upgrade(database))
                await until(partial(connection.fetch, waiting, somebody.get_server_pid()))
            await theirs
            await upgrade
            assert await connection.fetchval(valid.format("run_due"))
    with subtests.test(feed):
        await connection.execute("DROP INDEX ledger.event_feed")
        async with holder.transaction():
            await holder.execute(feed.replace(" ONLY ", " "))
            upgrade = asyncio.create_task(schema.upgrade(database))
            await awaited(holder)
        await upgrade
        assert await connection.fetchval(valid.format("event_feed"))
    await somebody.close()
    await holder.close()


async def test_a_transaction_whose_statement_an_upgrade_changed_is_to_be_run_again(
    unverified_database: str,
) -> None:
    connection = await asyncpg.connect(driver_url(unverified_database))
    statement = "SELECT * FROM ledger.schedule"
    await connections.fetch(connection, statement)
    await connection.execute("ALTER TABLE ledger.schedule ADD COLUMN remark text")

    with pytest.raises(DatabaseUnavailable, match="transaction, again"):
        async with connection.transaction():
            await connections.fetch(connection, statement)
    async with connection.transaction():
        await connections.fetch(connection, statement)
    await connection.close()


async def test_a_call_whose_helper_an_upgrade_changed_is_to_be_made_again(
    unverified_database: str,
) -> None:
    upgrade = await asyncpg.connect(driver_url(unverified_database))
    async with Ledger.open(unverified_database, PROJECT) as ledger:
        async with upgrade.transaction():
            await upgrade.execute("LOCK TABLE ledger.project; DROP FUNCTION ledger.ensure_months")
            call = asyncio.create_task(ledger.submit("parse"))
            await awaited(upgrade)

        with pytest.raises(DatabaseUnavailable, match=r"ensure_months.*again"):
            await call
    await upgrade.close()


async def test_what_an_upgrade_drops_below_a_running_statement_is_to_be_asked_for_again(
    unverified_database: str, subtests: pytest.Subtests
) -> None:
    upgrade = await asyncpg.connect(driver_url(unverified_database))
    async with Ledger.open(unverified_database, PROJECT) as ledger:
        run = await ledger.submit("parse")
    await upgrade.execute("CREATE SEQUENCE dropped; GRANT USAGE ON SEQUENCE dropped TO PUBLIC")
    anew = schema.install_script(schema.OBJECTS)
    waits = "SELECT {} FROM ledger.history('test', '{}', 0, true) AS h"
    async with with_login(unverified_database, "runfold_worker", rights=["read"]) as url:
        caller = await asyncpg.connect(driver_url(url))
        for what, change, statement in (
            (
                "cache lookup",
                f"DROP FUNCTION ledger.channel; {anew}",
                "ledger.channel('test'), h.*",
            ),
            ("type with OID", f"DROP VIEW ledger.entry CASCADE; {anew}", "h"),
            ("open relation with OID", "DROP SEQUENCE dropped", "nextval('dropped'), count(h.*)"),
        ):
            with subtests.test(what):
                async with upgrade.transaction():
                    await upgrade.execute("LOCK TABLE ledger.access_grant")  # history looks there
                    call = asyncio.create_task(
                        connections.fetch(caller, waits.format(statement, run.run_id))
                    )
                    blocked = "SELECT cardinality(pg_blocking_pids($1)) > 0"
                    await until(partial(upgrade.fetchval, blocked, caller.get_server_pid()))
                    await upgrade.execute(change)

                with pytest.raises(DatabaseUnavailable, match=rf"{what}.*again"):
                    await call
        await caller.close()
    await upgrade.close()


@pytest.mark.parametrize("comment", ["one line", "two\nlines", ""])
async def test_a_comment_that_is_not_the_upgrades_does_not_stop_the_next_one(
    database: str, comment: str
) -> None:
    connection = await asyncpg.connect(driver_url(database))
    await connection.execute(f"COMMENT ON TABLE ledger.alembic_version IS '{comment}'")

    await schema.upgrade(database)

    recorded = "SELECT obj_description('ledger.alembic_version'::regclass, 'pg_class')"
    assert schema.digest() in await connection.fetchval(recorded)
    await connection.close()


DAMAGE = {
    "a function": """
        CREATE OR REPLACE FUNCTION ledger.now() RETURNS timestamptz LANGUAGE sql STABLE
        AS $$SELECT timestamptz '2001-01-01Z'$$""",
    "a view": """
        DO $$ BEGIN EXECUTE format(
          'CREATE OR REPLACE VIEW ledger.role_member AS SELECT * FROM (%s) AS m WHERE false',
          rtrim(pg_get_viewdef('ledger.role_member'), ';'));
        END $$""",
    "triggers": "ALTER TABLE ledger.event DISABLE TRIGGER USER",
    "a grant": "GRANT DELETE ON ledger.payload TO PUBLIC",
}
_FUNCTIONS = "SELECT array_agg(prosrc ORDER BY prosrc) FROM pg_proc WHERE proname = 'now'"
_VIEW = "SELECT pg_get_viewdef('ledger.role_member')"
_TRIGGERS = """
SELECT array_agg(ROW(tgname, tgenabled)::text ORDER BY tgname) FROM pg_trigger
WHERE tgrelid = 'ledger.event'::regclass"""
_GRANT = "SELECT has_table_privilege('runfold_reader', 'ledger.payload', 'DELETE')"


async def test_what_was_changed_in_the_database_is_installed_again(
    database: str, connection: asyncpg.Connection, subtests: pytest.Subtests
) -> None:
    async def objects() -> list[object]:
        return [await connection.fetchval(sql) for sql in (_FUNCTIONS, _VIEW, _TRIGGERS, _GRANT)]

    before = await objects()
    for what, damage in DAMAGE.items():
        with subtests.test(what):
            await connection.execute(damage)
            assert await objects() != before

            await schema.upgrade(database)

            assert await objects() == before


async def test_tables_of_before_the_first_release_are_refused_by_name(
    unverified_database: str,
) -> None:
    connection = await asyncpg.connect(driver_url(unverified_database))
    await connection.execute("ALTER TABLE ledger.event DROP COLUMN meaning CASCADE")
    await connection.execute("COMMENT ON SCHEMA ledger IS 'functions of other files'")
    await connection.close()

    with pytest.raises(ConfigurationError, match=r"lack event\.meaning.*a new database.* /"):
        await schema.upgrade(unverified_database)


async def test_an_upgrade_that_changes_something_is_on_record_with_its_login(
    database: str, connection: asyncpg.Connection
) -> None:
    recorded = (
        "SELECT credential, subject, facts FROM ledger.control_event "
        "WHERE type = 'schema.upgraded' ORDER BY number"
    )
    first = await connection.fetch(recorded)
    await schema.upgrade(database)  # which has nothing to do
    unchanged = await connection.fetch(recorded)
    await connection.execute(OTHER_DIGEST)
    await schema.upgrade(database)
    *before, last = await connection.fetch(recorded)

    assert len(first) == 1
    assert unchanged == before == first
    assert (last["credential"], last["subject"]) == ("postgres", "schema:ledger")
    assert json.loads(last["facts"]) == {
        "revision": revisions.head(), "functions": schema.digest()
    }  # fmt: skip


FORMER = {
    "a function beside": (
        "CREATE FUNCTION ledger.reap(int) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        r"ledger\.reap",
    ),
    "a parameter of another name": (
        """
        DROP FUNCTION ledger.channel CASCADE;
        CREATE FUNCTION ledger.channel(p_name text) RETURNS text LANGUAGE sql AS 'SELECT 1'""",
        r'input parameter "p_name"',
    ),
    "a column of another name": (
        "DROP VIEW ledger.role_member CASCADE; CREATE VIEW ledger.role_member AS SELECT 1 AS who",
        r'view column "who"',
    ),
}


@pytest.mark.parametrize("former", FORMER)
async def test_functions_and_views_of_before_the_first_release_are_refused_by_name(
    unverified_database: str, former: str
) -> None:
    made, named = FORMER[former]
    connection = await asyncpg.connect(driver_url(unverified_database))
    await connection.execute(f"{made}; COMMENT ON SCHEMA ledger IS 'functions of other files'")
    await connection.close()

    with pytest.raises(ConfigurationError, match=rf"{named}.*a new database.* /"):
        await schema.upgrade(unverified_database)
