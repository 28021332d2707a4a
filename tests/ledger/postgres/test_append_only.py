"""Append-only: what the owner, a worker, a reader and everybody else cannot do to the ledger."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from runfold.ledger import Ledger, Run, State, Transition
from runfold.ledger.errors import AccessDenied
from runfold.ledger.events import NoteAdded
from tests.support.databases import PROJECT
from tests.support.logins import grant
from tests.support.runs import TINY, claimed, event_count
from tests.support.waiting import lapsed

TABLES = (
    "event",
    "payload",
    "run_state",
    "command",
    "kind",
    "project",
    "kind_event",
    "kind_state",
    "archive_event",
    "role_event",
    "view_event",
    "control_event",
    "control_head",
)
LEAVES = (
    "SELECT c.oid::regclass::text AS leaf FROM pg_inherits AS i JOIN pg_class AS c "
    "ON c.oid = i.inhrelid WHERE i.inhparent = 'ledger.event'::regclass AND c.relkind = 'r' "
    "ORDER BY 1"
)


async def leaves(connection: asyncpg.Connection) -> list[str]:
    """Name the partitions of the event table."""
    found = [row["leaf"] for row in await connection.fetch(LEAVES)]
    assert found
    return found


@pytest.fixture
async def login(connection: asyncpg.Connection) -> AsyncIterator[str]:
    """A login without any right."""
    name = f"login_{secrets.token_hex(4)}"
    await connection.execute(f"CREATE ROLE {name} LOGIN")
    yield name
    await connection.execute("RESET SESSION AUTHORIZATION")
    await connection.execute(f"DROP OWNED BY {name}")
    await connection.execute(f"DROP ROLE {name}")


# -- the owner -------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["origin", "replica", "local"])
async def test_not_even_the_owner_can_change_or_delete_what_was_appended(
    ledger: Ledger, connection: asyncpg.Connection, role: str
) -> None:
    await ledger.submit("parse", {"a": 1})
    await connection.execute(f"SET session_replication_role = {role}")

    for name in ("ledger.event", "ledger.payload", *await leaves(connection)):
        column = "body = '{}'" if name == "ledger.payload" else "actor = 'mallory'"
        holds = await connection.fetchval(f"SELECT count(*) FROM {name}") > 0
        for statement in (f"UPDATE {name} SET {column}", f"DELETE FROM {name}", f"TRUNCATE {name}"):
            if holds or statement.startswith("TRUNCATE"):
                with pytest.raises(asyncpg.PostgresError, match="append-only") as caught:
                    await connection.execute(statement)
                assert caught.value.sqlstate == "RF403"
    await connection.execute("RESET session_replication_role")

    assert await event_count(ledger) == 1


async def test_a_truncate_by_way_of_another_table_is_refused_too(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    await ledger.submit("parse", {"a": 1})

    for statement in ("TRUNCATE ledger.run_state, ledger.event", "TRUNCATE ledger.payload CASCADE"):
        with pytest.raises(asyncpg.PostgresError, match="append-only"):
            await connection.execute(statement)

    assert (await ledger.runs())[0].input == {"a": 1}


async def test_an_upsert_or_merge_changes_no_event(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    run = await ledger.submit("parse", {"a": 1})

    upsert = (
        "INSERT INTO ledger.event SELECT * FROM ledger.event "
        "ON CONFLICT (project_id, run_id, version) DO UPDATE SET actor = 'mallory'"
    )
    merge = (
        "MERGE INTO ledger.{0} AS t USING ledger.run_state AS s "
        "ON s.run_id = t.run_id WHEN MATCHED THEN {1}"
    )

    for statement in (
        upsert,
        merge.format("event", "UPDATE SET actor = 'm'"),
        merge.format("payload", "DELETE"),
    ):
        with pytest.raises(asyncpg.PostgresError, match="append-only"):
            await connection.execute(statement)

    assert (await ledger.history(run.run_id))[0].actor == ledger.actor


@pytest.mark.parametrize("role", ["origin", "replica"])
async def test_no_event_gets_into_a_partition_past_the_fold(
    ledger: Ledger, connection: asyncpg.Connection, role: str
) -> None:
    run = await ledger.submit("parse")
    await connection.execute(f"SET session_replication_role = {role}")
    columns = "project_id, run_id, version, recorded_at, type, actor, hash"

    for leaf in await leaves(connection):
        statement = (
            f"INSERT INTO {leaf} ({columns}) SELECT project_id, run_id, 2, recorded_at, "
            "'note.added', actor, hash "
            f"FROM ledger.event WHERE run_id = '{run.run_id}'"
        )
        with pytest.raises(asyncpg.PostgresError, match="append-only"):
            await connection.execute(statement)
    with pytest.raises(asyncpg.PostgresError, match="append-only"):
        await connection.copy_records_to_table(
            (await leaves(connection))[0].removeprefix("ledger."),
            schema_name="ledger",
            records=[],
            columns=["project_id"],
        )
    await connection.execute("RESET session_replication_role")

    assert await event_count(ledger) == 1


ILLEGAL: dict[str, str] = {
    "an end out of pending": "(2, 'run.completed', 'completed')",
    "a return to pending": "(2, 'lease.expired', 'pending')",
    "a lease that is none of a heartbeat": "(2, 'lease.heartbeat', NULL)",
    "an end that keeps its state to itself": "(2, 'run.cancelled', NULL)",
    "a note that moves the run": "(2, 'note.added', 'completed')",
    "a user's type that moves the run": "(2, 'acme.done', 'completed')",
    "a reserved type that does not exist": "(2, 'run.exploded', NULL)",
    "a state that does not exist": "(2, 'run.completed', 'done')",
    "a gap": "(3, 'note.added', NULL)",
    "a second first event": "(2, 'run.submitted', 'pending')",
    "two events of one run at once": "(2, 'note.added', NULL), (3, 'note.added', NULL)",
    "a legal one beside an illegal one": (
        "(2, 'note.added', NULL), (4, 'run.completed', 'completed')"
    ),
}


@pytest.mark.parametrize("role", ["origin", "replica"])
async def test_a_raw_insert_of_an_illegal_event_is_refused_whoever_writes_it(
    ledger: Ledger, connection: asyncpg.Connection, role: str
) -> None:
    run = await ledger.submit("parse")
    await connection.execute(f"SET session_replication_role = {role}")
    refused = {}

    for case, values in ILLEGAL.items():
        try:
            await raw_insert(connection, run, values)
        except asyncpg.PostgresError as error:
            refused[case] = error.sqlstate
    await connection.execute("RESET session_replication_role")

    assert refused == dict.fromkeys(ILLEGAL, "RF001")
    assert await ledger.get(run.run_id) == run
    assert await event_count(ledger) == 1


async def test_a_raw_insert_for_a_run_that_does_not_exist_or_has_ended_is_refused(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    run = await ledger.submit("parse")
    await ledger.cancel(run.run_id)

    for values in (
        "(3, 'lease.acquired', 'running')",
        "(3, 'acme.read', NULL)",
        "(3, 'step.completed', NULL)",
    ):
        with pytest.raises(asyncpg.PostgresError) as ended:
            await raw_insert(connection, run, values)
        assert ended.value.sqlstate == "RF001"
    with pytest.raises(asyncpg.PostgresError) as unknown:
        await connection.execute(
            "INSERT INTO ledger.event (project_id, run_id, version, recorded_at, type, actor, "
            "hash) VALUES ($1, ledger.uuid7(), 2, now(), 'note.added', 'm', sha256(''))",
            PROJECT,
        )

    assert unknown.value.sqlstate == "RF001"
    assert await event_count(ledger) == 2


async def test_a_first_event_that_is_no_submission_of_a_pending_run_is_refused(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    for type_, state in (
        ("note.added", None),
        ("run.submitted", "running"),
        ("run.submitted", None),
    ):
        with pytest.raises(asyncpg.PostgresError) as caught:
            await connection.execute(
                "INSERT INTO ledger.event (project_id, run_id, version, recorded_at, type, "
                "actor, state, kind, priority, max_attempts, tags, hash) "
                "VALUES ($1, ledger.uuid7(), 1, now(), $2, 'm', $3, 'k', 0, 1, '{}', sha256(''))",
                PROJECT,
                type_,
                state,
            )
        assert caught.value.sqlstate == "RF001"

    assert await ledger.runs() == []


async def test_a_running_run_without_a_lease_cannot_be_written(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    run = await ledger.submit("parse")

    with pytest.raises(asyncpg.CheckViolationError):
        await raw_insert(connection, run, "(2, 'lease.acquired', 'running')")

    assert await ledger.get(run.run_id) == run


async def raw_insert(connection: asyncpg.Connection, run: Run, values: str) -> None:
    """Insert events of a run past every function."""
    await connection.execute(
        "INSERT INTO ledger.event (project_id, run_id, version, recorded_at, type, actor, state, "
        "hash) "
        "SELECT $1, $2, v.version, now(), v.type, 'mallory', v.state, sha256('') "
        f"FROM (VALUES {values}) "
        "AS v (version, type, state)",
        run.project_id,
        run.run_id,
    )


async def test_every_guard_is_always_on_also_on_partitions_that_are_made_later(
    database: str, connection: asyncpg.Connection
) -> None:
    assert await connection.fetchval("SELECT ledger.make_partitions(7)") > 0
    guards = (
        "SELECT c.oid::regclass::text AS relation, t.tgname, t.tgenabled, t.tgtype "
        "FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid "
        "WHERE c.relnamespace = 'ledger'::regnamespace AND NOT t.tgisinternal"
    )
    found: dict[str, set[str]] = {}

    for row in await connection.fetch(guards):
        assert row["tgenabled"] == b"A", (
            f"{row['tgname']} on {row['relation']} can be switched off by a session"
        )
        found.setdefault(row["relation"], set()).add(row["tgname"])

    assert found["ledger.event"] >= {"fold_run_state", "refuse_change", "refuse_truncate"}
    assert found["ledger.payload"] >= {"refuse_change", "refuse_truncate"}
    for leaf in await leaves(connection):
        assert found[leaf] >= {"refuse_change", "refuse_truncate", "refuse_insert"}


async def test_making_partitions_again_makes_none_and_leaves_a_default_partition_out(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.fetchval("SELECT ledger.make_partitions(3)")

    assert await connection.fetchval("SELECT ledger.make_partitions(3)") == 0
    assert await connection.fetchval("SELECT partdefid FROM pg_partitioned_table") == 0
    with pytest.raises(asyncpg.PostgresError, match="0 to 120"):
        await connection.fetchval("SELECT ledger.make_partitions(121)")


async def test_a_worker_makes_the_next_months_only(
    database: str, connection: asyncpg.Connection, login: str
) -> None:
    await connection.execute(f"GRANT runfold_worker TO {login}")
    await connection.execute(f"SET SESSION AUTHORIZATION {login}")

    await connection.execute("SELECT ledger.make_partitions()")
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="at most 3 months ahead"):
        await connection.execute("SELECT ledger.make_partitions(4)")


# -- a worker, a reader, everybody -----------------------------------------------------------------


async def as_role(database: str, login: str, connection: asyncpg.Connection, *roles: str) -> str:
    """Grant roles to a login and give the address under which to open the ledger as it."""
    for role in roles:
        await connection.execute(f"GRANT {role} TO {login}")
    return f"{database}{'&' if '?' in database else '?'}options=-c%20role%3D{login}"


async def test_a_worker_login_can_do_every_operation(
    database: str, connection: asyncpg.Connection, login: str
) -> None:
    url = await as_role(database, login, connection, "runfold_worker")

    async with Ledger.open(url, PROJECT) as ledger:
        assert await ledger.pool.fetchval("SELECT current_user") == login
        lease = await claimed(ledger, input={"a": 1}, key="k", ttl=TINY)
        await ledger.heartbeat([lease])
        await ledger.append(lease, NoteAdded(text="x"), key="n")
        await ledger.append(lease, NoteAdded(text="x"), key="n")
        await ledger.transition(lease, State.WAITING_APPROVAL, park=True)
        await ledger.approve(await ledger.get(lease.run_id), actor="ann")
        (again,) = await ledger.claim("w:2", ttl=TINY)
        await lapsed(ledger, again)
        assert len(await ledger.reap()) == 1
        assert (await ledger.heartbeat([again]))[0].lost
        (third,) = await ledger.claim("w:3")
        await ledger.cancel(third.run_id)
        await ledger.release(third)
        last = await claimed(ledger)
        await ledger.retry(last)
        (retried,) = await ledger.claim("w:1")
        await ledger.transition_many([Transition(retried, State.COMPLETED, output=1)])
        assert len(await ledger.runs()) == 2
        assert (await ledger.state_at(lease.run_id, 1)).input == {"a": 1}
        assert len(await ledger.history(lease.run_id)) > 5
        with pytest.raises(AccessDenied, match="runfold_auditor"):
            await ledger.verify()  # for which it would need the salts
        assert await ledger.pool.fetchval("SELECT ledger.make_partitions(5)") >= 0


FORBIDDEN = (
    "INSERT INTO ledger.event SELECT * FROM ledger.event",
    "INSERT INTO ledger.payload SELECT * FROM ledger.payload",
    "INSERT INTO ledger.run_state SELECT * FROM ledger.run_state",
    "INSERT INTO ledger.command SELECT * FROM ledger.command",
    "INSERT INTO ledger.kind VALUES ('test', 'x')",
    "INSERT INTO ledger.project VALUES ('x')",
    *(f"DELETE FROM ledger.{table}" for table in TABLES),
    *(f"TRUNCATE ledger.{table}" for table in TABLES),
    *(f"SELECT * FROM ledger.{table} FOR UPDATE" for table in TABLES),
    *(f"SELECT * FROM ledger.{table} FOR KEY SHARE" for table in TABLES),
    *(f"LOCK TABLE ledger.{table} IN EXCLUSIVE MODE" for table in TABLES),
    "UPDATE ledger.event SET actor = 'x'",
    "UPDATE ledger.payload SET salt = ''",
    "UPDATE ledger.run_state SET version = 1",
    "UPDATE ledger.command SET version = 1",
    "UPDATE ledger.kind SET kind = 'x'",
    "UPDATE ledger.project SET project_id = 'x'",
    "UPDATE ledger.alembic_version SET version_num = '9'",
    "ALTER TABLE ledger.event DISABLE TRIGGER ALL",
    "ALTER TABLE ledger.event RENAME TO other",
    "DROP TABLE ledger.payload",
    "CREATE TABLE ledger.mine ()",
    "CREATE FUNCTION ledger.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "SET session_replication_role = replica",
    "SELECT nextval('ledger.event_position')",
    "SELECT setval('ledger.event_position', 1)",
    "SELECT ledger.legal('x', 'y', 'z')",
    (
        "SELECT * FROM ledger.submit_keys('test', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', "
        "'{}', '{}', '')"
    ),
)
OPERATIONS = (
    "submit", "claim", "heartbeat", "transition", "decide", "requeue", "cancel", "append",
    "commands", "refuse", "reap", "keep_time", "next_due", "parked_runs", "make_partitions",
    "change_kind",
    "signal", "closings", "change_access", "change_role", "change_token", "use_token",
    "put_schedule", "change_schedule", "drop_schedule", "advance_schedule", "change_view", "snooze",
    "change_user", "password_method", "sign_in_by_token", "sign_in_by_password",
    "sign_in_by_provider", "end_session",
    "change_webhook", "resend_delivery", "note_verify",
)  # fmt: skip


@pytest.mark.parametrize("role", ["runfold_worker", "runfold_reader"])
async def test_a_login_can_write_no_table_and_lock_no_row(
    ledger: Ledger, connection: asyncpg.Connection, login: str, role: str
) -> None:
    await ledger.submit("parse", {"a": 1}, key="k")
    await connection.execute(f"GRANT {role} TO {login}")
    await connection.execute(f"SET SESSION AUTHORIZATION {login}")

    for statement in (*FORBIDDEN, *(f"DELETE FROM {leaf}" for leaf in await leaves(connection))):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with connection.transaction():  # which some of them need
                await connection.execute(statement)

    await connection.execute("RESET SESSION AUTHORIZATION")
    assert await connection.fetchval("SELECT count(*) FROM ledger.event") == 1


async def test_a_reader_login_can_read_and_do_nothing_else(
    database: str, ledger: Ledger, connection: asyncpg.Connection, login: str
) -> None:
    lease = await claimed(ledger, input={"a": 1})
    before = await event_count(ledger)
    url = await as_role(database, login, connection, "runfold_reader")

    async with Ledger.open(url, PROJECT) as reader:
        assert (await reader.get(lease.run_id)).input == {"a": 1}
        assert len(await reader.history(lease.run_id)) == 2
        assert (await reader.state_at(lease.run_id, 1)).state == State.PENDING
        assert len(await reader.runs(kind="parse")) == 1
        with pytest.raises(AccessDenied, match="runfold_auditor"):
            await reader.verify()  # for which it would need the salts
        calls: list[Any] = [
            reader.submit("parse"),
            reader.claim("w:2"),
            reader.heartbeat([lease]),
            reader.transition(lease, State.COMPLETED),
            reader.release(lease),
            reader.cancel(lease.run_id),
            reader.append(lease, NoteAdded(text="x")),
            reader.reap(),
        ]
        for call in calls:
            with pytest.raises(AccessDenied, match="runfold_worker"):
                await call
    with pytest.raises(AccessDenied):
        async with Ledger.open(url, "new", create_project=True):
            pass

    assert await event_count(ledger) == before


async def test_a_login_without_a_role_can_neither_read_nor_call_anything(
    database: str, connection: asyncpg.Connection, login: str
) -> None:
    with pytest.raises(AccessDenied):
        async with Ledger.open(await as_role(database, login, connection), PROJECT):
            pass


async def test_the_public_has_no_right_on_anything_of_the_schema(
    database: str, connection: asyncpg.Connection
) -> None:
    functions = await connection.fetch(
        "SELECT oid::regprocedure::text AS f FROM pg_proc "
        "WHERE pronamespace = 'ledger'::regnamespace AND has_function_privilege('public', oid, "
        "'EXECUTE')"
    )
    relations = await connection.fetch(
        "SELECT oid::regclass::text AS r FROM pg_class "
        "WHERE relnamespace = 'ledger'::regnamespace AND relkind IN ('r', 'p', 'v', 'S') AND "
        "CASE relkind WHEN 'S' THEN has_sequence_privilege('public', oid, 'USAGE, SELECT, "
        "UPDATE') ELSE has_table_privilege('public', oid, 'SELECT, INSERT, UPDATE, DELETE, "
        "TRUNCATE, REFERENCES, TRIGGER') END"
    )

    assert functions == []
    assert relations == []
    assert not await connection.fetchval(
        "SELECT has_schema_privilege('public', 'ledger', 'USAGE, CREATE')"
    )


async def test_the_roles_may_execute_the_operations_and_nothing_more(
    database: str, connection: asyncpg.Connection
) -> None:
    async def may(role: str) -> set[str]:
        return {
            row["proname"]
            for row in await connection.fetch(
                "SELECT proname FROM pg_proc WHERE pronamespace = 'ledger'::regnamespace "
                "AND has_function_privilege($1, oid, 'EXECUTE')",
                role,
            )
        }

    worker, reader = await may("runfold_worker"), await may("runfold_reader")

    assert worker - reader == set(OPERATIONS)
    assert reader < worker


async def test_every_function_that_runs_with_the_owners_rights_pins_its_search_path(
    database: str, connection: asyncpg.Connection
) -> None:
    loose = await connection.fetch(
        "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'ledger'::regnamespace "
        "AND prosecdef AND NOT coalesce(proconfig, '{}') @> ARRAY['search_path=pg_catalog, "
        "pg_temp']"
    )

    assert loose == []


async def test_a_worker_that_calls_the_functions_itself_is_held_by_the_same_rules(
    ledger: Ledger, connection: asyncpg.Connection, login: str
) -> None:
    lease = await claimed(ledger)
    run = await ledger.submit("parse")
    before = await event_count(ledger)
    await connection.execute(f"GRANT runfold_worker TO {login}")
    await grant(connection, login, ("work", "submit"))
    await connection.execute(f"SET SESSION AUTHORIZATION {login}")

    async def append(type_: str | None, token: int | None) -> list[Any]:
        statement = (
            "SELECT * FROM ledger.append('test', 'm', ARRAY[$1::uuid], ARRAY[$2::int], "
            "ARRAY[$3::text], '{1}', '{NULL}', '{NULL}', '{NULL}', '{NULL}', '{NULL}', '{NULL}', "
            "'{NULL}', ARRAY[$4])"
        )
        worker = None if token is None else lease.worker_id
        return list(await connection.fetch(statement, lease.run_id, token, type_, worker))

    for type_ in ("run.completed", "lease.expired", "tool.completed", "approval.granted",
        "write.refused", "payload.erased",
                  "cancel.requested", "run.mine", "note.mine", "step.mine", None):  # fmt: skip
        assert await append(type_, lease.token) == []
        assert await append(type_, None) == []
    assert await append("step.completed", None) == []
    assert await append("note.added", 99) == []
    with pytest.raises(asyncpg.PostgresError):
        await connection.fetch(
            "SELECT * FROM ledger.requeue('test', 'm', 'run.completed', ARRAY[$1::uuid], '{2}', "
            "'{0}', '{NULL}', '{NULL}')",
            lease.run_id,
        )
    with pytest.raises(asyncpg.PostgresError):
        await connection.fetch(
            "SELECT * FROM ledger.cancel('test', NULL, ARRAY[$1::uuid], NULL)", run.run_id
        )

    await connection.execute("RESET SESSION AUTHORIZATION")
    assert await connection.fetchval("SELECT count(*) FROM ledger.event") == before


async def test_a_worker_that_calls_the_functions_itself_cannot_make_a_time_that_never_comes(
    ledger: Ledger, connection: asyncpg.Connection, login: str
) -> None:
    lease = await claimed(ledger)
    await ledger.submit("parse")
    before = await event_count(ledger)
    await connection.execute(f"GRANT runfold_worker TO {login}")
    await grant(connection, login, ("work", "submit"))
    await connection.execute(f"SET SESSION AUTHORIZATION {login}")
    submit = (
        "SELECT * FROM ledger.submit('test', 'm', '{k}', '{NULL}', '{NULL}', '{0}', "
        "ARRAY[$1::interval], '{1}', ARRAY[$2::timestamptz], ARRAY[$3::interval], '{NULL}')"
    )
    calls: list[tuple[str, tuple[Any, ...]]] = [
        (submit.replace("$2", "'infinity'").replace("$1", "NULL").replace("$3", "NULL"), ()),
        (submit.replace("$2", "'-infinity'").replace("$1", "NULL").replace("$3", "NULL"), ()),
    ]
    if await connection.fetchval("SELECT current_setting('server_version_num')::int") >= 170000:
        # Intervals have an infinity from 17 on.
        calls += [
            (submit.replace("$1", "'infinity'").replace("$2", "NULL").replace("$3", "NULL"), ()),
            (submit.replace("$3", "'infinity'").replace("$1", "NULL").replace("$2", "NULL"), ()),
            ("SELECT * FROM ledger.claim('test', 'm', NULL, 1, 'infinity')", ()),
            (
                (
                    "SELECT * FROM ledger.heartbeat('test', ARRAY[$1::uuid], ARRAY[$2::int], "
                    "'{infinity}', '{w:1}')"
                ),
                (lease.run_id, lease.token),
            ),
        ]

    accepted = []
    for statement, arguments in calls:
        try:
            await connection.fetch(statement, *arguments)
        except asyncpg.PostgresError:
            continue
        accepted.append(statement)

    assert accepted == []
    await connection.execute("RESET SESSION AUTHORIZATION")
    assert await connection.fetchval("SELECT count(*) FROM ledger.event") == before
    assert (await ledger.verify()).ok
