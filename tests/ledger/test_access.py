"""Access: a login of one project can do, read, lock and detect nothing of another."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from runfold.ledger import Ledger, access
from runfold.ledger.errors import DatabaseUnavailable
from runfold.ledger.events import NoteAdded
from runfold.ledger.postgres import schema
from runfold.ledger.postgres.server_roles import ROLES
from runfold.ledger.postgres.urls import driver_url
from tests.support.databases import PROJECT, name_of
from tests.support.logins import channel, grant, login_of, with_login
from tests.support.runs import claimed
from tests.support.signatures import callable_functions
from tests.support.waiting import BOUND

OTHER = "other"


async def calls(run_id: Any, project: str) -> dict[str, tuple[str, tuple[Any, ...]]]:
    """Every function that writes or judges by itself, as a call on a run of a project."""
    return {
        "parked_runs": ("SELECT * FROM ledger.parked_runs($1)", (project,)),
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
            "SELECT * FROM ledger.change_kind($1, 'm', 'k', 'kind.paused', NULL, NULL, true)",
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
            (
                "SELECT ledger.put_schedule($1, 'm', 's', 'k', NULL, '* * * * *', 'UTC', now(), "
                "NULL, true)"
            ),
            (project,),
        ),
        "change_webhook": (
            (
                "SELECT ledger.change_webhook($1, 'm', NULL, 'add', "
                "'https://m.example', '{}', '{}', '\\x00', false, NULL)"
            ),
            (project,),
        ),
        "resend_delivery": (
            "SELECT ledger.resend_delivery($1, 'm', 'wh_1', $2, 1)",
            (project, run_id),
        ),
        "forget_deliveries": ("SELECT ledger.forget_deliveries($1)", (project,)),
        "queue_deliveries": (
            "SELECT ledger.queue_deliveries($1, 'wh_1', 'a', 'b', '{}', '{}', '{}', '{}')",
            (project,),
        ),
        "due_deliveries": (
            "SELECT * FROM ledger.due_deliveries($1, 'wh_1', 1, '1 min')",
            (project,),
        ),
        "record_attempt": (
            "SELECT ledger.record_attempt($1, 'wh_1', $2, 1, 1, 5, 200, NULL, NULL)",
            (project, run_id),
        ),
        "webhook_duties": ("SELECT * FROM ledger.webhook_duties($1)", (project,)),
        "change_view": ("SELECT ledger.change_view($1, 'm', 'mine', 'kind:k')", (project,)),
        "snooze": ("SELECT ledger.snooze($1, 'm', $2, 1, now())", (project, run_id)),
        "note_verify": (
            "SELECT ledger.note_verify($1, 'm', now(), 1, 1, 0, 0, '{}')",
            (project,),
        ),
        "note_reads": ("SELECT ledger.note_reads($1, ARRAY[$2::uuid], '/x')", (project, run_id)),
        "commands": (
            f"SELECT * FROM ledger.commands($1{', NULL' * 11}, '{{k}}')",
            (project,),
        ),
        "check_my_access": ("SELECT ledger.check_my_access($1, 'read', 'm')", (project,)),
        "advance_schedule": (
            "SELECT ledger.advance_schedule($1, 's', now(), now(), now(), now())",
            (project,),
        ),
        "change_schedule": (
            "SELECT ledger.change_schedule($1, 'm', 's', 'pause', NULL, 'r')",
            (project,),
        ),
        "drop_schedule": ("SELECT ledger.drop_schedule($1, 'm', 's')", (project,)),
        "history": ("SELECT * FROM ledger.history($1, $2, 0, true)", (project, run_id)),
        "read_run": ("SELECT * FROM ledger.read_run($1, $2)", (project, run_id)),
    }


UNLOCKED = """
SELECT count(*) FROM (
  SELECT FROM ledger.run_state WHERE run_id = $1 FOR UPDATE SKIP LOCKED
) AS unlocked
"""


@pytest.fixture
async def keeper(database: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A login that may call every function that any role may, with every right in `test` alone."""
    async with with_login(database, *ROLES, rights=access.RIGHTS) as url:
        opened = await asyncpg.connect(driver_url(url))
        yield opened
        await opened.close()


async def test_who_may_do_all_everywhere_is_refused_a_project_that_does_not_exist(
    database: str, connection: asyncpg.Connection[Any], subtests: pytest.Subtests
) -> None:
    """Else a worker or a reaper of a mistyped project would find nothing, for ever."""
    async with with_login(database, *ROLES, rights=access.RIGHTS, project="*") as url:
        everywhere = await asyncpg.connect(driver_url(url))
        for name, (statement, arguments) in (await calls(uuid4(), "nowhere")).items():
            for who, session in (("owner", connection), ("login", everywhere)):
                with subtests.test(name, who=who):
                    with pytest.raises(asyncpg.PostgresError, match="project nowhere") as refused:
                        await session.fetch(statement, *arguments)
                    assert refused.value.sqlstate == "RF404"
        await everywhere.close()


async def test_no_function_tells_a_project_of_others_from_one_that_does_not_exist(
    ledger: Ledger, other: Ledger, keeper: asyncpg.Connection[Any]
) -> None:
    """Every one that is called with a project, but those that ask nothing and tell nothing."""
    functions = await callable_functions(keeper)
    run = await other.submit("parse", {"secret": 1}, key="k")
    await other.claim("w:1", ttl=60)
    before = (await other.get(run.run_id)).version
    theirs = await calls(run.run_id, OTHER)
    nowhere = await calls(run.run_id, "nowhere")

    for name, (statement, arguments) in theirs.items():
        with pytest.raises(asyncpg.PostgresError) as refused:
            await keeper.fetch(statement, *arguments)
        with pytest.raises(asyncpg.PostgresError) as unknown:
            await keeper.fetch(*_flat(nowhere[name]))
        assert refused.value.sqlstate == unknown.value.sqlstate == "RF404", name
        assert str(refused.value).replace(OTHER, "nowhere") == str(unknown.value), name

    assert (await other.get(run.run_id)).version == before
    of_a_project = {
        name for name, known in functions.items() if ["p_project", "text"] in known["parameters"]
    }
    assert of_a_project - set(theirs) == {
        "channel", "state_at", "rebuild_run_state", "feed_page", "read_runs",
    }  # fmt: skip


async def test_no_function_takes_a_name_that_a_login_was_not_granted(
    ledger: Ledger, database: str, connection: asyncpg.Connection[Any]
) -> None:
    run = await ledger.submit("parse")
    async with with_login(database, *ROLES) as url:
        await grant(connection, login_of(url), list(access.RIGHTS), actors=[login_of(url)])
        own = await asyncpg.connect(driver_url(url))
        taken = set()
        for name, (statement, arguments) in (await calls(run.run_id, PROJECT)).items():
            try:
                await own.fetch(statement, *arguments)
            except asyncpg.PostgresError as error:
                if "may not speak for m" in str(error):
                    continue
            if re.search(r"\bm\b", statement.replace("https://m.", "")):
                taken.add(name)
        await own.close()

    # They name the worker of a lease, which must be the one that took it.
    assert taken == {"heartbeat", "requeue"}


async def test_no_function_reaches_a_run_of_another_project_through_ones_own(
    ledger: Ledger,
    other: Ledger,
    keeper: asyncpg.Connection[Any],
    connection: asyncpg.Connection[Any],
) -> None:
    """Not even the run whose lease it holds there, under a key that names it there."""
    login = await keeper.fetchval("SELECT session_user")
    await grant(connection, login, ["work"], project=OTHER)
    run = await other.submit("parse", {"secret": 1}, key="k")
    claim, arguments = (await calls(run.run_id, OTHER))["claim"]
    assert [row["token"] for row in await keeper.fetch(claim, *arguments)] == [2]
    before = await other.history(run.run_id)

    here = await calls(run.run_id, PROJECT)
    here["read_runs"] = (
        "SELECT * FROM ledger.read_runs($1, ARRAY[$2::uuid])",
        (PROJECT, run.run_id),
    )
    here["read_runs without content"] = (
        f"SELECT * FROM ledger.{BARE}",
        (PROJECT, run.run_id),
    )
    refused = set()
    async with keeper.transaction():
        for name, (statement, arguments) in here.items():
            if run.run_id in arguments or name in {"claim", "reap", "commands"}:
                try:
                    async with keeper.transaction():
                        rows = await keeper.fetch(statement, *arguments)
                        assert [row for row in rows if any(row.values())] == [], name
                except asyncpg.PostgresError:
                    refused.add(name)
        assert await ledger.pool.fetchval(UNLOCKED, run.run_id) == 1
    assert refused == {"snooze"}  # which is to a time that is over
    for rights in (["read"], ["submit"], ["work"]):
        await access.grant(ledger.project, login, rights)
        for name in ("read_run", "read_runs", "read_runs without content"):
            statement, arguments = here[name]
            assert await keeper.fetch(statement, *arguments) == [], (name, rights)
    assert await other.history(run.run_id) == before


async def test_a_key_of_another_project_is_no_key_here(ledger: Ledger, other: Ledger) -> None:
    await other.submit("parse", key="submitted")
    [theirs] = await other.claim("w:1")
    await other.submit("parse", key="submitted by others")
    await other.append(theirs, NoteAdded(text="theirs"), key="noted")
    await other.complete(theirs, "theirs", key="ended")

    assert (await ledger.submit("parse", "ours", key="submitted")).input == "ours"
    [lease] = await ledger.claim("w:1")
    await ledger.append(lease, NoteAdded(text="ours"), key="noted")
    asked = await ledger.transition(lease, "waiting_approval", park=True)
    await ledger.approve(asked, actor="ann", key="submitted by others")
    [lease] = await ledger.claim("w:1")
    assert (await ledger.complete(lease, "ours", key="ended")).output == "ours"


SHOWN = "read_runs($1, ARRAY[$2::uuid])"
"""Shows of a run what the policies of the tables do."""
BARE = "read_runs($1, ARRAY[$2::uuid], false)"
"""Shows as much, but no content."""


async def test_without_the_right_read_a_run_is_seen_without_its_content(
    ledger: Ledger, keeper: asyncpg.Connection[Any]
) -> None:
    done = await claimed(ledger, input="secret")
    await ledger.complete(done, "secret")
    failed = await claimed(ledger)
    await ledger.fail(failed, "acme.broken", error_detail="secret")
    login = await keeper.fetchval("SELECT session_user")
    seen = set()
    for right in ("submit", "work", "decide"):
        await access.grant(ledger.project, login, [right])
        for lease in (done, failed):
            for function in ("read_run($1, $2)", SHOWN):
                call = f"SELECT input, output, error_detail FROM ledger.{function}"
                seen |= {tuple(row) for row in await keeper.fetch(call, PROJECT, lease.run_id)}
        if right == "work":  # how others ended their leases has their content
            closings, arguments = (await calls(done.run_id, PROJECT))["closings"]
            assert await keeper.fetch(closings, *arguments) == []

    assert seen == {(None, None, None)}


async def test_what_concerns_every_project_takes_the_right_in_every_project(
    keeper: asyncpg.Connection[Any],
) -> None:
    user = "SELECT ledger.change_user('m', 'eve', 'add', NULL, NULL, NULL, 'https://id', '7', NULL)"
    for statement in (
        user,
        "SELECT ledger.change_token('m', 'abc', sha256('a'), 'name', '1 day', NULL)",
        "SELECT ledger.change_access('*', 'm', 'm', '{admin}', NULL, NULL, NULL)",
        "SELECT ledger.sign_in_by_provider('https://id', '7', sha256('a'))",
        "SELECT ledger.end_session(NULL, 'abc')",
        "SELECT ledger.begin_work('rebuild', true)",
        "SELECT ledger.make_projection_table('sizes_v1', '{k}', '{text}', '{}', '{k}')",
        "SELECT ledger.publish_projection('sizes', 1, '{k}', '{}', '{}')",
        "SELECT ledger.exchange_projection_table('sizes', 1, 1)",
        "SELECT ledger.drop_projection_tables('sizes', true)",
    ):
        with pytest.raises(asyncpg.PostgresError, match=r"lacks .* in all projects") as refused:
            await keeper.fetch(statement)
        assert refused.value.sqlstate == "RF403", statement


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
    await other.webhooks.add("https://example.com")

    for setting in ("", "SET row_security = on", "SET session_replication_role = origin"):
        if setting:
            try:
                await attacker.execute(setting)
            except asyncpg.InsufficientPrivilegeError:
                continue
        for relation in (
            "project", "event", "payload", "run_state", "run", "entry", "kind", "kind_event",
            "kind_state", "command", "schedule", "role_event", "role_member", "access_grant",
            "webhook",
        ):  # fmt: skip
            found = await attacker.fetch(f"SELECT project_id FROM ledger.{relation}")
            assert {row["project_id"] for row in found} <= {PROJECT}, relation
    assert (
        await attacker.fetch("SELECT * FROM ledger.state_at($1, $2, 1, NULL)", OTHER, run.run_id)
        == []
    )
    asked = f"SELECT * FROM ledger.{SHOWN}"
    assert await attacker.fetch(asked, OTHER, run.run_id) == []
    assert await attacker.fetchval("SELECT ledger.channel($1)", OTHER) is None
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await attacker.fetch("SELECT salt FROM ledger.payload")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await attacker.execute("SET row_security = off; SELECT * FROM ledger.event")


async def test_the_feed_gives_a_login_the_events_of_its_projects_only(
    ledger: Ledger, other: Ledger, attacker_url: str
) -> None:
    await other.submit("parse")
    run = await ledger.submit("parse")
    async with Ledger.open(attacker_url, PROJECT) as own:
        rows = await own.pool.fetch(
            "SELECT e.run_id FROM ledger.feed_now() AS n, "
            "LATERAL ledger.feed_page(n.generation, '1:1:@0', n.moment, 0, 100) AS e"
        )

        assert [row["run_id"] for row in rows] == [run.run_id]
        await ledger.pool.execute("SELECT ledger.feed_rebase()")
        end = await ledger.pool.fetchval(
            "SELECT end_position FROM ledger.feed_generation WHERE generation = 1"
        )
        rows = await own.pool.fetch(
            "SELECT e.run_id FROM ledger.feed_page(1, '1:1:@0', $1, 0, 100) AS e",
            f"9223372036854775807:9223372036854775807:@{end}",
        )
        await ledger.revoke_access(login_of(attacker_url))
        with pytest.raises(asyncpg.PostgresError, match="read or audit in all projects"):
            await own.pool.fetch(
                "SELECT FROM ledger.feed_page(1, '1:1:@0', $1, 0, 100)", f"1:1:@{end}"
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


async def test_every_function_that_runs_as_the_owner_asks_for_a_right(
    connection: asyncpg.Connection[Any], attacker: asyncpg.Connection[Any]
) -> None:
    """What a role may call either asks for a right, or is listed here with its reason."""
    without = {
        # The secret is the right.
        "token_credential", "use_token", "sign_in_by_token", "sign_in_by_password",
        # It gives a salt, which is no secret.
        "password_method",
        # They tell a session its own rights.
        "projects_with", "projects_seen", "speaker", "channel", "check_my_access",
        # It ends what the session itself began.
        "end_work",
        # They give moments of the feed, no events.
        "check_cluster", "check_moment", "check_months_read",
        "feed_moment", "feed_now", "feed_next",
        # Bounded, and the same for all projects; nobody tells the second anything.
        "make_partitions", "keep_time",
    }  # fmt: skip
    rows = await connection.fetch(
        "SELECT p.proname::text AS name, p.prosrc AS body FROM pg_proc AS p "
        "WHERE p.pronamespace = 'ledger'::regnamespace AND p.prosecdef "
        "AND EXISTS (SELECT FROM aclexplode(p.proacl) AS a WHERE a.grantee <> p.proowner)"
    )
    careless = {
        row["name"]
        for row in rows
        if not any(
            word in row["body"] for word in ("check_access(", "has_right(", "projects_with(")
        )
    }

    assert careless <= without


async def test_what_a_login_can_hold_up_is_limited_by_the_server(
    ledger: Ledger, attacker: asyncpg.Connection[Any]
) -> None:
    await ledger.submit("parse")
    login = await attacker.fetchval("SELECT session_user::text")
    for statement, arguments in (
        ("SELECT * FROM ledger.claim('test', $1, NULL, 1, '10 years')", (login,)),
        ("SELECT * FROM ledger.claim('test', $1, NULL, 10001, '1 minute')", (login,)),
        (
            "SELECT * FROM ledger.read_runs('test', array_fill($1::uuid, '{10001}'))",
            (uuid4(),),
        ),
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
        with pytest.raises(DatabaseUnavailable, match=r"for database .*: an admin .*grants it"):
            async with Ledger.open(url, "test"):
                pass
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
        await owner.execute(f"GRANT CONNECT ON DATABASE {name_of(url)} TO {login_of(url)}")
        await grant(owner, login_of(url), ())
        await (await asyncpg.connect(driver_url(url))).close()
        await owner.close()


async def test_no_advisory_lock_of_a_login_stops_a_pause_or_a_month(
    ledger: Ledger, connection: asyncpg.Connection[Any], attacker: asyncpg.Connection[Any]
) -> None:
    held = await attacker.fetch(
        "SELECT pg_advisory_lock(hashtextextended(name, 0)) FROM unnest($1::text[]) AS name",
        ["ledger.make_partitions", "ledger.kind 'test' 'parse'"],
    )
    assert len(held) == 2

    async with asyncio.timeout(BOUND):
        await ledger.pause_kind("parse", actor="ann", ahead=True)
        assert await connection.fetchval("SELECT ledger.make_partitions(4)") == 1


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


async def test_a_run_and_a_page_show_each_right_what_the_tables_show_it(
    ledger: Ledger, keeper: asyncpg.Connection[Any]
) -> None:
    done = await claimed(ledger, input="secret")
    await ledger.complete(done, "secret")
    login = await keeper.fetchval("SELECT session_user")
    shown = dict.fromkeys(access.RIGHTS, "nothing")
    for right in access.RIGHTS:
        await access.grant(ledger.project, login, [right])
        by_policies = await keeper.fetch(
            "SELECT * FROM ledger.run WHERE project_id = $1 AND run_id = $2", PROJECT, done.run_id
        )
        asked = f"SELECT * FROM ledger.{SHOWN}"
        assert await keeper.fetch(asked, PROJECT, done.run_id) == by_policies, right
        assert await keeper.fetch(asked, PROJECT, uuid4()) == []
        assert await keeper.fetch(asked, OTHER, done.run_id) == []
        bare = await keeper.fetch(f"SELECT * FROM ledger.{BARE}", PROJECT, done.run_id)
        assert [row["version"] for row in bare] == [row["version"] for row in by_policies], right
        assert not any(row["input"] or row["output"] for row in bare)
        for row in by_policies:
            shown[right] = "all" if row["output"] else "no content"
    assert {right: what for right, what in shown.items() if what != "nothing"} == {
        "read": "all",
        "audit": "all",
        "work": "no content",
    }
