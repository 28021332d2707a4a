"""Access: a login of one project can do, read, lock and detect nothing of another."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest

from runfold.ledger import Lease, Ledger, Run, State, access
from runfold.ledger.errors import (
    AccessDenied,
    DecisionRefused,
    InvalidValue,
    LeaseLost,
    LedgerError,
    UnknownProject,
)
from runfold.ledger.events import ApprovalGranted, NoteAdded, WriteRefused
from runfold.ledger.operations.decide import request
from runfold.ledger.postgres import schema
from runfold.ledger.postgres.urls import driver_url
from runfold.workers import Context, handler
from runfold.workers.leases.strays import Strays
from tests.conftest import PROJECT
from tests.support.logins import channel, grant, login_of, with_login
from tests.support.runs import superseded
from tests.support.waiting import until
from tests.support.working import ended, reached, working

OTHER = "other"
ROOT = Path(__file__).parents[2]
WORKING = ("submit", "work", "read", "schedule")


@pytest.fixture
async def other(database: str) -> AsyncIterator[Ledger]:
    """The owner's ledger of another project, with a run that waits and one that is held."""
    async with Ledger.open(database, OTHER, create_project=True) as opened:
        yield opened


@pytest.fixture
async def mallory(database: str) -> AsyncIterator[str]:
    """The URL of a login that works in project `test` only."""
    async with with_login(database, "runfold_worker", rights=WORKING) as url:
        yield url


@pytest.fixture
async def attacker(mallory: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """Mallory's own connection."""
    connection = await asyncpg.connect(driver_url(mallory))
    yield connection
    await connection.close()


async def calls(run_id: Any, project: str) -> dict[str, tuple[str, tuple[Any, ...]]]:
    """Every function that writes, as a call on a run of a project."""
    return {
        "submit": (
            (
                "SELECT * FROM ledger.submit($1, 'm', '{k}', '{null}', '{null}', '{0}', '{null}', "
                "'{1}', '{null}', '{null}', '{null}')"
            ),
            (project,),
        ),
        "claim": ("SELECT * FROM ledger.claim($1, 'm', NULL, 1, '1 minute')", (project,)),
        "heartbeat": (
            "SELECT * FROM ledger.heartbeat($1, ARRAY[$2::uuid], '{2}', '{1 minute}', '{m}')",
            (project, run_id),
        ),
        "transition": (
            (
                "SELECT * FROM ledger.transition($1, '{m}', ARRAY[$2::uuid], '{2}', '{completed}', "
                "NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '{m}')"
            ),
            (project, run_id),
        ),
        "decide": (
            (
                "SELECT * FROM ledger.decide($1, 'm', $2, 'approval.granted', 3, NULL, NULL, NULL, "
                "NULL)"
            ),
            (project, run_id),
        ),
        "requeue": (
            (
                "SELECT * FROM ledger.requeue($1, 'lease.released', ARRAY[$2::uuid], '{2}', "
                "'{0}', '{null}', '{null}', '{m}')"
            ),
            (project, run_id),
        ),
        "cancel": (
            "SELECT * FROM ledger.cancel($1, 'm', ARRAY[$2::uuid], NULL)",
            (project, run_id),
        ),
        "append": (
            (
                "SELECT * FROM ledger.append($1, 'm', ARRAY[$2::uuid], NULL, '{note.added}', "
                "'{1}', '{null}', '{null}', '{null}', '{null}', '{null}', '{null}', '{null}')"
            ),
            (project, run_id),
        ),
        "signal": (
            "SELECT * FROM ledger.signal($1, 'm', $2, 'go', NULL, NULL, NULL)",
            (project, run_id),
        ),
        "refuse": (
            "SELECT * FROM ledger.refuse($1, 'm', 'x', ARRAY[$2::uuid], '{2}')",
            (project, run_id),
        ),
        "reap": ("SELECT * FROM ledger.reap($1, 'reaper', 10)", (project,)),
        "closings": (
            "SELECT * FROM ledger.closings($1, ARRAY[$2::uuid], '{2}')",
            (project, run_id),
        ),
        "next_due": ("SELECT ledger.next_due($1, now())", (project,)),
        "change_kind": (
            "SELECT * FROM ledger.change_kind($1, 'm', 'k', 'kind.paused', NULL, NULL)",
            (project,),
        ),
        "change_role": (
            "SELECT ledger.change_role($1, 'm', 'role.granted', 'r', 'm', NULL)",
            (project,),
        ),
        "change_access": (
            "SELECT ledger.change_access($1, 'm', 'm', '{admin}', NULL, NULL, NULL)",
            (project,),
        ),
        "put_schedule": (
            "SELECT ledger.put_schedule($1, 'm', 's', 'k', NULL, '* * * * *', 'UTC', now())",
            (project,),
        ),
        "drop_schedule": ("SELECT ledger.drop_schedule($1, 'm', 's')", (project,)),
        "history": ("SELECT * FROM ledger.history($1, $2, 0, true)", (project, run_id)),
        "read_run": ("SELECT * FROM ledger.read_run($1, $2)", (project, run_id)),
    }


async def test_no_function_tells_a_project_of_others_from_one_that_does_not_exist(
    other: Ledger, attacker: asyncpg.Connection[Any]
) -> None:
    run = await other.submit("parse", {"secret": 1}, key="k")
    await other.claim("w:1", ttl=60)
    before = (await other.get(run.run_id)).version
    theirs = await calls(run.run_id, OTHER)
    nowhere = await calls(run.run_id, "nowhere")

    for name, (statement, arguments) in theirs.items():
        with pytest.raises(asyncpg.PostgresError) as refused:
            await attacker.fetch(statement, *arguments)
        with pytest.raises(asyncpg.PostgresError) as unknown:
            await attacker.fetch(*_flat(nowhere[name]))
        assert refused.value.sqlstate == unknown.value.sqlstate == "RF404", name
        assert str(refused.value).replace(OTHER, "nowhere") == str(unknown.value), name

    assert (await other.get(run.run_id)).version == before


def _flat(call: tuple[str, tuple[Any, ...]]) -> tuple[Any, ...]:
    return (call[0], *call[1])


async def test_a_login_reads_no_row_of_another_project_whatever_it_sets(
    ledger: Ledger, other: Ledger, attacker: asyncpg.Connection[Any]
) -> None:
    await ledger.submit("parse", {"mine": 1})
    run = await other.submit("parse", {"secret": 1}, key="k")
    await other.pause_kind("parse", actor="ann")
    await other.grant_role("finance", "ann")
    await other.schedule("nightly", "parse", cron="0 3 * * *")

    for setting in ("", "SET row_security = on", "SET session_replication_role = origin"):
        if setting:
            try:
                await attacker.execute(setting)
            except asyncpg.InsufficientPrivilegeError:
                continue
        for relation in (
            "project", "event", "payload", "run_state", "run", "entry", "kind", "kind_event",
            "kind_state", "command", "schedule", "role_event", "role_member", "access_grant",
        ):  # fmt: skip
            found = await attacker.fetch(f"SELECT project_id FROM ledger.{relation}")
            assert {row["project_id"] for row in found} <= {PROJECT}, relation
    assert (
        await attacker.fetch("SELECT * FROM ledger.state_at($1, $2, 1, NULL)", OTHER, run.run_id)
        == []
    )
    assert await attacker.fetchval("SELECT ledger.channel($1)", OTHER) is None
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await attacker.fetch("SELECT salt FROM ledger.payload")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await attacker.execute("SET row_security = off; SELECT * FROM ledger.event")


async def test_the_feed_gives_a_login_the_events_of_its_projects_only(
    ledger: Ledger, other: Ledger, mallory: str
) -> None:
    await other.submit("parse")
    run = await ledger.submit("parse")
    async with Ledger.open(mallory, PROJECT) as own:
        rows = await own.pool.fetch(
            "SELECT e.run_id FROM ledger.feed_now() AS n, "
            "LATERAL ledger.feed_page(n.generation, '1:1:@0', n.moment, 0, 100) AS e"
        )

    assert [row["run_id"] for row in rows] == [run.run_id]


async def test_no_login_hears_the_wake_ups_of_another_project(
    ledger: Ledger, other: Ledger, attacker: asyncpg.Connection[Any]
) -> None:
    heard: list[object] = []
    for name in ("runfold", OTHER, f"runfold_{OTHER}", await channel(attacker)):
        await attacker.add_listener(name, lambda *args: heard.append(args[2]))

    await other.submit("parse")
    await other.project.waker.flush()
    await ledger.submit("parse")
    await ledger.project.waker.flush()
    await attacker.execute("SELECT 1")

    assert set(heard) == {await channel(attacker)}


async def test_every_event_names_the_credential_that_wrote_it_and_is_hashed_with_it(
    ledger: Ledger, mallory: str
) -> None:
    async with Ledger.open(mallory, PROJECT) as own:
        run = await own.submit("parse")
    [submitted] = await ledger.history(run.run_id)

    assert submitted.credential == login_of(mallory) == submitted.actor
    assert (await ledger.verify()).ok


async def test_a_lease_is_its_credentials_alone(
    ledger: Ledger, database: str, mallory: str
) -> None:
    """The token of another's lease can be read, and is worth nothing."""
    async with (
        with_login(database, "runfold_worker", rights=WORKING) as worker,
        Ledger.open(worker, PROJECT) as held_by,
        Ledger.open(mallory, PROJECT) as thief,
    ):
        await ledger.submit("parse")
        [lease] = await held_by.claim("w:1", ttl=60)
        seen = await thief.get(lease.run_id)
        stolen = Lease(
            seen.run_id, seen.token or 0, 1, 3, "parse", 0, None, seen.worker_id or "",
            lease.until, timedelta(seconds=60),
        )  # fmt: skip

        with pytest.raises(LeaseLost):
            await thief.transition(stolen, State.COMPLETED)
        with pytest.raises(LeaseLost):
            await thief.append(stolen, NoteAdded(text="mine"))
        [beat] = await thief.heartbeat([stolen])
        assert beat.lost
        with pytest.raises(LeaseLost):
            await thief.release(stolen)
        done = await held_by.transition(lease, State.COMPLETED)

    assert done.state == State.COMPLETED
    refused = [e for e in await ledger.history(lease.run_id) if e.type == "write.refused"]
    assert {event.credential for event in refused} == {login_of(mallory)}


async def test_a_login_speaks_for_itself_and_for_whom_it_was_granted(
    database: str, connection: asyncpg.Connection[Any]
) -> None:
    async with with_login(database, "runfold_worker") as url:
        await grant(connection, login_of(url), WORKING, actors=[login_of(url), "web-*"])
        async with Ledger.open(url, PROJECT) as own:
            assert own.actor == login_of(url)
            await own.submit("parse")
            await own.submit("parse", actor="web-7")
            for name in ("ceo", "web", "Web-7", "*"):
                with pytest.raises(
                    AccessDenied, match=f"may not speak for {name}".replace("*", r"\*")
                ):
                    await own.submit("parse", actor=name)
                with pytest.raises(AccessDenied):
                    await own.claim(name)


async def test_rights_are_held_one_by_one_and_end(
    database: str, ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    run = await ledger.submit("parse", {"secret": 1})
    async with with_login(database, "runfold_worker") as url:
        login = login_of(url)
        with pytest.raises(UnknownProject):
            async with Ledger.open(url, PROJECT):
                pass
        await access.grant(ledger.project, login, ["submit"])
        async with Ledger.open(url, PROJECT) as own:
            made = await own.submit("parse", {"a": 1}, key="k")
            again = await own.submit("parse", {"a": 1}, key="k")
            assert (made.input, again.input) == (None, None)  # which it may not read
            assert (await own.submit("parse", {"a": 1})).input == {"a": 1}  # its own words
            with pytest.raises(AccessDenied, match="lacks the right work"):
                await own.claim(f"{login}:1")
            with pytest.raises(LedgerError):
                await own.history(run.run_id)
            with pytest.raises(AccessDenied, match="lacks the right admin"):
                await own.pause_kind("parse")
            assert await access.check(own.project, "submit") is None
            assert "lacks the right admin" in str(await access.check(own.project, "admin"))

            await access.grant(ledger.project, login, ["work"])
            [lease] = await own.claim(f"{login}:1", limit=1)
            assert [e.type for e in await own.history(lease.run_id)] == [
                "run.submitted",
                "lease.acquired",
            ]
            await own.release(lease)
            with pytest.raises(AccessDenied, match="lacks the right read"):
                await own.history(lease.run_id)

            await access.revoke(ledger.project, login, reason="left")
            with pytest.raises(UnknownProject):
                await own.submit("parse")
            ended = f"'{login}', '{{work}}', NULL, now() - interval '1 second', NULL"
            await connection.execute(f"SELECT ledger.change_access('test', 'a', {ended})")
            with pytest.raises(UnknownProject):
                await own.claim(f"{login}:1")


async def test_nobody_decides_what_the_same_credential_asked_for(
    database: str, ledger: Ledger
) -> None:
    rights = ("submit", "work", "read", "decide")
    async with (
        with_login(database, "runfold_worker", rights=rights) as agent,
        with_login(database, "runfold_worker", rights=("decide", "read")) as person,
        with_login(database, "runfold_worker", rights=("work", "read")) as worker,
        Ledger.open(agent, PROJECT) as asks,
        Ledger.open(person, PROJECT) as decides,
        Ledger.open(worker, PROJECT) as works,
    ):
        await ledger.submit("parse")
        [lease] = await asks.claim("w:1", ttl=60)
        await asks.transition(lease, State.WAITING_APPROVAL, park=True)
        waiting = await ledger.get(lease.run_id)
        for wrong in (asks, works):
            with pytest.raises(LedgerError):
                await wrong.approve(waiting, actor="ann")
        granted = await decides.approve(waiting, actor="ann")

    assert granted.available_at is not None
    [event] = [e for e in await ledger.history(lease.run_id) if e.type == "approval.granted"]
    assert event.credential == login_of(person)


async def test_a_token_has_its_own_rights_whoever_presents_it(
    ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    credential, secret = await access.make_token(ledger.project, "ci")
    await access.grant(ledger.project, credential, ["submit"], actors=["ci"])
    submit = (await calls(None, PROJECT))["submit"][0].replace("'m'", "'ci'")

    assert await connection.fetchval("SELECT ledger.use_token($1)", secret) == credential
    await connection.execute("SELECT set_config('runfold.token', $1, false)", secret)
    [row] = await connection.fetch(submit, PROJECT)
    with pytest.raises(asyncpg.PostgresError, match="lacks the right work"):
        await connection.fetch("SELECT * FROM ledger.reap('test', 'reaper', 1)")
    [event] = await ledger.history(row["run_id"])
    assert event.credential == credential

    await access.revoke_token(ledger.project, credential)
    with pytest.raises(asyncpg.PostgresError, match="unknown, revoked or past its end"):
        await connection.fetch(submit, PROJECT)
    await connection.execute("SELECT set_config('runfold.token', $1, false)", secret + "x")
    with pytest.raises(asyncpg.PostgresError, match="unknown, revoked or past its end"):
        await connection.fetch(submit, PROJECT)
    await connection.execute("SELECT set_config('runfold.token', '', false)")
    assert await connection.fetchval("SELECT ledger.use_token($1)", secret) is None
    [token] = await access.tokens(ledger.project)
    assert (token.credential, token.failed_uses) == (credential, 1)
    assert secret not in str(await connection.fetch("SELECT * FROM ledger.api_token"))
    assert secret not in str(await connection.fetch("SELECT * FROM ledger.control_event"))


async def test_every_change_of_control_is_in_one_chain_without_gaps(
    ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    await ledger.pause_kind("parse", actor="ann", reason="incident")
    await ledger.grant_role("finance", "ann", actor="bob")
    await ledger.schedule("nightly", "parse", cron="0 3 * * *", actor="cat")
    await access.grant(ledger.project, "w_login", ["work"], actor="bob")
    await access.revoke(ledger.project, "w_login", actor="bob", reason="left")
    await ledger.unschedule("nightly")

    events = await access.control_history(ledger.project)

    assert [(e.type, e.actor) for e in events][-8:] == [
        ("project.added", events[0].credential),
        ("kind.paused", "ann"),
        ("role.granted", "bob"),
        ("schedule.added", "cat"),
        ("access.added", "bob"),
        ("access.removed", "bob"),
        ("schedule.changed", ledger.actor),
        ("schedule.removed", ledger.actor),
    ]
    every = await access.control_history(ledger.project, everywhere=True)
    assert [e.number for e in every] == list(range(1, len(every) + 1))
    for statement in (
        "UPDATE ledger.control_event SET actor = 'x'",
        "DELETE FROM ledger.control_event",
    ):
        with pytest.raises(asyncpg.PostgresError, match="append-only"):
            await connection.execute(statement)


async def test_concurrent_changes_of_control_make_one_chain(ledger: Ledger) -> None:
    await asyncio.gather(
        *(ledger.grant_role("finance", f"member-{n}", actor="bob") for n in range(20))
    )

    every = await access.control_history(ledger.project, everywhere=True)
    assert [e.number for e in every] == list(range(1, len(every) + 1))


async def test_bad_grants_are_refused_with_the_value(ledger: Ledger) -> None:
    for wrong in (["root"], []):
        with pytest.raises(InvalidValue):
            await access.grant(ledger.project, "w_login", wrong)
    with pytest.raises(InvalidValue):
        await access.grant(ledger.project, "w\x1blogin", ["work"])
    with pytest.raises(InvalidValue, match="root"):
        await access.check(ledger.project, "root")


async def test_a_token_is_made_by_an_actor_and_for_a_reason_of_any_allowed_length(
    ledger: Ledger,
) -> None:
    credential, _ = await access.make_token(
        ledger.project, "ci", actor="a" * 200, reason="r" * 2_000
    )

    assert [token.credential for token in await access.tokens(ledger.project)] == [credential]


async def test_every_function_that_runs_as_the_owner_asks_for_a_right(
    connection: asyncpg.Connection[Any], attacker: asyncpg.Connection[Any]
) -> None:
    """What a role may call either asks for a right, or is listed here with its reason."""
    without = {
        # The secret is the right.
        "token_credential", "use_token",
        # They tell a session its own rights.
        "projects_with", "speaker", "channel", "check_my_access",
        # They give moments of the feed, no events.
        "feed_guard", "feed_known", "feed_moment", "feed_now", "feed_next", "feed_whole",
        # Bounded, and the same for all projects; nobody tells the second anything.
        "make_partitions", "keep_time",
        # Of runfold_projector.
        "make_projection_table", "publish_projection", "exchange_projection_table",
        "drop_projection_tables",
    }  # fmt: skip
    rows = await connection.fetch(
        "SELECT p.proname::text AS name, p.prosrc AS body FROM pg_proc AS p "
        "WHERE p.pronamespace = 'ledger'::regnamespace AND p.prosecdef "
        "AND EXISTS (SELECT FROM aclexplode(p.proacl) AS a WHERE a.grantee <> p.proowner)"
    )
    careless = {
        row["name"]
        for row in rows
        if not any(word in row["body"] for word in ("check_access(", "projects_with("))
    }

    assert careless <= without


async def test_a_decision_records_what_it_decided_and_outlives_the_content(
    unverified_database: str,
) -> None:
    connection = await asyncpg.connect(driver_url(unverified_database))
    async with Ledger.open(unverified_database, PROJECT) as ledger:
        await _decided(ledger, connection)
    await connection.close()


async def _decided(ledger: Ledger, connection: asyncpg.Connection[Any]) -> None:
    await ledger.grant_role("finance", "ann")
    await ledger.submit("pay", actor="bob")
    [lease] = await ledger.claim("w:1", ttl=60)
    asked = request("Pay?", {"sum": 7}, role="finance", other_person=True)
    await ledger.transition(lease, State.WAITING_APPROVAL, park=True, content=asked)
    waiting = await ledger.get(lease.run_id)
    await connection.execute("ALTER TABLE ledger.payload DISABLE TRIGGER refuse_change")
    await connection.execute("DELETE FROM ledger.payload WHERE version = $1", waiting.version)
    [before] = await ledger.history(lease.run_id, after=waiting.version - 1)
    assert (before.role, before.other_person) == ("finance", True)  # type: ignore[attr-defined]

    for wrong in ("bob", "BOB", "\uff22ob", "zoe"):
        with pytest.raises(DecisionRefused):
            await ledger.approve(waiting, actor=wrong)
    granted = await ledger.approve(waiting, actor="ann", meaning="reviewed")

    [event] = [e for e in await ledger.history(granted.run_id) if e.type == "approval.granted"]
    assert isinstance(event, ApprovalGranted)
    assert (event.request, event.meaning) == (waiting.version, "reviewed")
    assert event.shown_sha256 == asked["shown_sha256"]


async def test_the_rights_are_the_same_in_python_in_the_table_and_on_the_page(
    connection: asyncpg.Connection[Any],
) -> None:
    definition = await connection.fetchval(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE conrelid = 'ledger.access_grant'::regclass AND contype = 'c'"
    )
    page = (ROOT / "docs/howto/access.md").read_text()

    assert set(re.findall(r"'(\w+)'::text", definition)) == set(access.RIGHTS)
    assert set(re.findall(r"^\| `(\w+)` \|", page.split("## The grants")[1], re.MULTILINE)) == set(
        access.RIGHTS
    )
    for wrong in ("{own}", "{read,own}", "{NULL}"):
        with pytest.raises(asyncpg.PostgresError) as refused:
            await grant_raw(connection, wrong)
        assert refused.value.sqlstate == "22023"


async def grant_raw(connection: asyncpg.Connection[Any], rights: str) -> None:
    """Grant rights as another language would."""
    change = f"'test', 'tests', 'somebody', '{rights}', NULL, NULL, NULL"
    await connection.execute(f"SELECT ledger.change_access({change})")


async def test_what_a_login_can_hold_up_is_limited_by_the_server(
    ledger: Ledger, attacker: asyncpg.Connection[Any]
) -> None:
    await ledger.submit("parse")
    login = await attacker.fetchval("SELECT session_user::text")
    for statement, arguments in (
        ("SELECT * FROM ledger.claim('test', $1, NULL, 1, '10 years')", (login,)),
        ("SELECT * FROM ledger.claim('test', $1, NULL, 10001, '1 minute')", (login,)),
        (
            "SELECT * FROM ledger.heartbeat('test', array_fill($1::uuid, '{10001}'), '{}', '{}')",
            (uuid4(),),
        ),
        (
            "SELECT * FROM ledger.cancel('test', $1, array_fill($2::uuid, ARRAY[10001]), NULL)",
            (login, uuid4()),
        ),
    ):
        with pytest.raises(asyncpg.PostgresError) as refused:
            await attacker.fetch(statement, *arguments)
        assert refused.value.sqlstate == "22023", statement
    for statement in (
        "LOCK TABLE ledger.control_event IN SHARE ROW EXCLUSIVE MODE",
        "LOCK TABLE ledger.event IN ACCESS EXCLUSIVE MODE",
        "SELECT FROM ledger.run_state FOR UPDATE",
        "SELECT FROM ledger.schedule FOR SHARE",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with attacker.transaction():
                await attacker.execute(statement)


async def test_a_login_of_another_database_of_the_server_does_not_connect(
    empty_database: str,
) -> None:
    await schema.upgrade(empty_database)
    async with with_login(empty_database, "runfold_worker") as url:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="CONNECT"):
            await asyncpg.connect(driver_url(url))
        owner = await asyncpg.connect(driver_url(empty_database))
        await owner.execute("INSERT INTO ledger.project (project_id) VALUES ('test')")
        await grant(owner, login_of(url), ("read",))
        opened = await asyncpg.connect(driver_url(url))
        assert await opened.fetchval("SELECT count(*) FROM ledger.project") == 1
        await opened.close()
        await grant(owner, login_of(url), ())
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="CONNECT"):
            await asyncpg.connect(driver_url(url))
        await owner.close()


async def test_a_grant_opens_the_door_to_a_login_only_and_shuts_it_on_no_stranger(
    empty_database: str,
) -> None:
    await schema.upgrade(empty_database)
    async with with_login(empty_database, "runfold_worker") as url:
        owner = await asyncpg.connect(driver_url(empty_database))
        await owner.execute("INSERT INTO ledger.project (project_id) VALUES ('test')")
        await grant(owner, "runfold_worker", ("read",))
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="CONNECT"):
            await asyncpg.connect(driver_url(url))
        await owner.execute(
            f"GRANT CONNECT ON DATABASE {urlsplit(url).path[1:]} TO {login_of(url)}"
        )
        await grant(owner, login_of(url), ())
        await (await asyncpg.connect(driver_url(url))).close()
        await owner.close()


async def test_whoever_presents_tokens_of_others_hides_no_refusal_of_theirs(
    database: str, ledger: Ledger
) -> None:
    first, second = await superseded(ledger)
    async with with_login(database, "runfold_worker", rights=("work",)) as url:
        thief = await asyncpg.connect(driver_url(url))
        for token in (first.token, second.token):
            for name in ("transition", *(f"operation {n}" for n in range(20))):
                await thief.execute(
                    "SELECT ledger.refuse($1, $2, $3, ARRAY[$4::uuid], ARRAY[$5::int])",
                    PROJECT, login_of(url), name, first.run_id, token,
                )  # fmt: skip
        await thief.close()
        with pytest.raises(LeaseLost):
            await ledger.transition(first, State.COMPLETED)

        refused = [e for e in await ledger.history(first.run_id) if isinstance(e, WriteRefused)]
        assert [event.credential for event in refused] == [*[login_of(url)] * 20, "postgres"]
        assert (refused[-1].token, refused[-1].name) == (first.token, "transition")


async def test_the_refusals_of_a_run_are_bounded_and_the_last_ones_say_so(
    database: str, ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    run, tokens = await ledger.submit("parse"), []
    for _ in range(10):
        [lease] = await ledger.claim("w:1")
        tokens.append(lease.token)
        await ledger.release(lease)

    async def refused_by(caller: asyncpg.Connection[Any], actor: str) -> list[WriteRefused]:
        for token in tokens:
            for number in range(9):  # fewer than a token's own bound
                await caller.execute(
                    "SELECT ledger.refuse($1, $2, $3, ARRAY[$4::uuid], ARRAY[$5::int])",
                    PROJECT, actor, f"operation {number}", run.run_id, token,
                )  # fmt: skip
        return [e for e in await ledger.history(run.run_id) if isinstance(e, WriteRefused)]

    own = await refused_by(connection, "w:1")
    async with with_login(database, "runfold_worker", rights=("work",)) as url:
        other = await asyncpg.connect(driver_url(url))
        both = await refused_by(other, login_of(url))
        await other.close()

    assert (len(own), own[-1].name, own[-2].name) == (80, "and more", "operation 6")
    assert (len(both), both[-1].name, both[-2].name) == (100, "and more", "operation 0")


async def test_no_advisory_lock_of_a_login_stops_a_pause_or_a_month(
    ledger: Ledger, connection: asyncpg.Connection[Any], attacker: asyncpg.Connection[Any]
) -> None:
    held = await attacker.fetch(
        "SELECT pg_advisory_lock(hashtextextended(name, 0)) FROM unnest($1::text[]) AS name",
        ["ledger.make_partitions", "ledger.kind 'test' 'parse'"],
    )
    assert len(held) == 2

    async with asyncio.timeout(10):
        await ledger.pause_kind("parse", actor="ann")
        assert await connection.fetchval("SELECT ledger.make_partitions(4)") == 1


@handler("part")
async def part(_: Context, number: int) -> int:
    return number * 2


@handler("whole")
async def whole(ctx: Context, number: int) -> int:
    doubled = await ctx.step("double", lambda: number * 2)
    await ctx.sleep(0.01)
    await ctx.approval("Go on?", timeout=60)
    output: int = await ctx.child("part", doubled)
    return output


@pytest.mark.parametrize("rights", [("submit", "work", "schedule"), WORKING])
async def test_a_worker_needs_no_other_rights_than_the_page_says(
    database: str, ledger: Ledger, rights: tuple[str, ...]
) -> None:
    """Without `read` a worker does everything but read the outcomes of other runs."""
    async with (
        with_login(database, "runfold_worker", rights=rights) as url,
        Ledger.open(url, PROJECT) as own,
    ):
        run = await ledger.submit("whole", 4)
        async with working(own, whole, part):
            waiting = await reached(ledger, run, State.WAITING_APPROVAL)
            await ledger.approve(waiting, actor="ann")
            assert (await ended(ledger, await _child(ledger))).output == 16
            if "read" in rights:
                assert (await ended(ledger, run)).output == 16


async def test_a_worker_with_the_right_work_alone_gives_back_what_it_does_not_know_it_holds(
    ledger: Ledger, database: str
) -> None:
    run = await ledger.submit("parse")
    async with (
        with_login(database, "runfold_worker", rights=["work"]) as url,
        Ledger.open(url, PROJECT) as own,
    ):
        strays = Strays(own, "w:1")
        strays.suspect()
        await own.claim("w:1")  # whose answer is lost

        await strays.give_back(())

    assert (await ledger.get(run.run_id)).state == State.PENDING


async def _child(ledger: Ledger) -> Run:
    async def is_there() -> bool:
        return bool([one for one in await ledger.runs() if one.kind == "part"])

    await until(is_there)
    [child] = [one for one in await ledger.runs() if one.kind == "part"]
    return child


async def test_the_tables_of_projections_show_a_login_its_projects_only(
    ledger: Ledger, other: Ledger, database: str, attacker: asyncpg.Connection[Any]
) -> None:
    for name, columns, types, key in (
        ("mine_v1", ["project_id", "reads"], ["text", "int"], ["project_id"]),
        ("all_v1", ["kind", "reads"], ["text", "int"], ["kind"]),
    ):
        made = "SELECT ledger.make_projection_table($1, $2, $3, '{}', $4)"
        await ledger.pool.execute(made, name, columns, types, key)
    await ledger.pool.execute("INSERT INTO projection.mine_v1 VALUES ('test', 1), ('other', 2)")
    await ledger.pool.execute("INSERT INTO projection.all_v1 VALUES ('parse', 3)")

    assert await attacker.fetch("SELECT * FROM projection.mine_v1") == [("test", 1)]
    assert await attacker.fetch("SELECT * FROM projection.all_v1") == []
    async with (
        with_login(database, "runfold_projector", rights=("read",), project="*") as url,
        Ledger.open(url, OTHER) as projector,
    ):
        await projector.pool.execute("INSERT INTO projection.all_v1 VALUES ('other', 4)")
        assert len(await projector.pool.fetch("SELECT * FROM projection.mine_v1")) == 2
