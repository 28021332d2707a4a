"""Rights are granted one by one, and a login does what it was granted, in its own names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from runfold.console.shared.token_ledger import token_ledger
from runfold.ledger import Ledger, Run, State, access, api_tokens
from runfold.ledger.errors import (
    AccessDenied,
    DuplicateKey,
    IllegalTransition,
    InvalidValue,
    RunNotFound,
    UnknownProject,
)
from runfold.ledger.events import ApprovalRequested, NoteAdded
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.postgres.server_roles import ROLES
from runfold.ledger.postgres.urls import driver_url
from runfold.workers import Context, handler
from runfold.workers.journal.children import sweep
from runfold.workers.leases.strays import Strays
from tests.ledger.test_access import calls
from tests.support.databases import PROJECT
from tests.support.logins import grant, login_of, with_login
from tests.support.waiting import until
from tests.support.working import ended, reached, working

ROOT = Path(__file__).parents[2]
WORKING = ("submit", "work", "read", "schedule")


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


async def test_the_project_of_a_session_is_the_first_that_its_rows_are_compared_with(
    database: str, ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    """Else a scan of a table by a login of 2,000 projects compares each row with 2,000."""
    seen, others = "SELECT ledger.projects_seen('read')", ["a", "b", "z"]
    for project in (*others, "strange"):
        await connection.execute("INSERT INTO ledger.project VALUES ($1)", project)
    credential, secret = await api_tokens.make_token(ledger.project, "ci")
    async with with_login(database, "runfold_reader", rights=["read"]) as url:
        async with Ledger.open(url, PROJECT) as own:
            assert await own.pool.fetchval(seen) == [PROJECT]
        for project in (*others, PROJECT):
            await grant(connection, login_of(url), ["read"], project=project)
            await grant(connection, credential, ["read"], project=project)
        for project in ("b", PROJECT):
            async with Ledger.open(url, project) as own:
                [row] = await fetch(own.pool, seen)
                by_token = token_ledger(own, secret, credential, project)
                [of_token] = await fetch(by_token.pool, seen)
            for projects in (row["projects_seen"], of_token["projects_seen"]):
                assert projects[0] == project
                assert set(projects) == {*others, PROJECT}
        async with Ledger.open(url, PROJECT) as own, own.pool.acquire() as session:
            await session.execute("SELECT set_config('runfold.project', 'strange', false)")
            assert set(await session.fetchval(seen)) == {*others, PROJECT}


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
            with pytest.raises(AccessDenied, match="lacks the right read"):
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

            await ledger.schedule("nightly", "parse", cron="0 3 * * *")
            await access.grant(ledger.project, login, ["schedule"])
            with pytest.raises(AccessDenied, match="lacks the right submit") as refused:
                await own.run_schedule("nightly", reason="now")
            assert refused.value.remedy == AccessDenied.GRANTS  # and no role besides

            await access.revoke(ledger.project, login, reason="left")
            with pytest.raises(UnknownProject):
                await own.submit("parse")
            ended = f"'{login}', '{{work}}', NULL, now() - interval '1 second', NULL"
            await connection.execute(f"SELECT ledger.change_access('test', 'a', {ended})")
            with pytest.raises(UnknownProject):
                await own.claim(f"{login}:1")


async def test_bad_grants_are_refused_with_the_value(ledger: Ledger) -> None:
    for wrong in (["root"], [], "work"):
        with pytest.raises(InvalidValue):
            await access.grant(ledger.project, "w_login", wrong)
    with pytest.raises(InvalidValue):
        await access.grant(ledger.project, "w\x1blogin", ["work"])
    with pytest.raises(InvalidValue, match="must be a list"):  # and not one of its letters
        await access.grant(ledger.project, "w_login", ["work"], actors="ann")
    with pytest.raises(InvalidValue, match="root"):
        await access.check(ledger.project, "root")


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


# Which right each function asks for, of those that are called with a project; any one of several.
ASKED = {
    "submit": "submit cancel signal",
    "submit work decide": "commands",
    "submit work decide read": "read_run",
    "work": "claim heartbeat requeue reap closings transition refuse",  # with a lease's token
    "submit work decide ": "append",  # without one
    "work read": "next_due parked_runs",
    "read": (
        "history change_view queue_deliveries due_deliveries forget_deliveries record_attempt"
        " webhook_duties check_my_access"
    ),
    "read audit": "note_reads",
    "decide": "decide snooze",
    "schedule": "put_schedule change_schedule advance_schedule drop_schedule",
    "audit": "note_verify",
    "admin": "change_kind change_role change_access change_webhook resend_delivery",
}


TRANSITION = (
    "SELECT * FROM ledger.transition($1, '{m}', ARRAY[$2::uuid], '{null}', '{cancelled}', NULL,"
    " NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '{1}', NULL)"
)


async def test_every_function_is_refused_with_any_right_but_its_own(
    ledger: Ledger, database: str, connection: asyncpg.Connection[Any], subtests: pytest.Subtests
) -> None:
    run = await ledger.submit("parse")
    rules = {name: set(rights.split()) for rights, names in ASKED.items() for name in names.split()}
    functions = await calls(run.run_id, PROJECT)
    assert set(functions) == set(rules)
    functions["of nobody's lease"] = (TRANSITION, (PROJECT, run.run_id))
    rules["of nobody's lease"] = {"submit", "work"}
    async with with_login(database, *ROLES) as url:
        login = await asyncpg.connect(driver_url(url))
        allowed: dict[str, set[str]] = {name: set() for name in functions}
        for right in access.RIGHTS:
            await grant(connection, login_of(url), [right])
            for name, (statement, arguments) in functions.items():
                tried = login.transaction()
                await tried.start()
                try:
                    await login.fetch(statement, *arguments)
                except asyncpg.PostgresError as error:
                    if error.sqlstate != "RF403":
                        allowed[name].add(right)
                else:
                    allowed[name].add(right)
                await tried.rollback()
        await login.close()

    for name, rights in allowed.items():
        with subtests.test(name):
            assert rights == rules[name]


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
    runs = await ledger.submit_many([{"kind": "parse"}] * 4)
    async with (
        with_login(database, "runfold_worker", rights=["work"]) as url,
        Ledger.open(url, PROJECT) as own,
    ):
        strays = Strays(own, "w:1")
        strays.suspect()
        held, noted, _ = await own.claim("w:1", limit=3)  # whose answer is lost, but for one
        await own.claim("w:2")
        await ledger.append(noted.run_id, NoteAdded(text="by others, so the reaper's"))

        await strays.give_back([(held.run_id, held.token)])

    states = [(await ledger.get(run.run_id)).state for run in runs]
    assert states == [State.RUNNING, State.RUNNING, State.PENDING, State.RUNNING]


async def _child(ledger: Ledger) -> Run:
    async def is_there() -> bool:
        return bool([one for one in await ledger.runs() if one.kind == "part"])

    await until(is_there)
    [child] = [one for one in await ledger.runs() if one.kind == "part"]
    return child


async def test_a_write_that_is_repeated_under_its_key_takes_no_right_to_read(
    ledger: Ledger, database: str, connection: asyncpg.Connection[Any]
) -> None:
    """Its answer may have been lost; whoever sends it again learns what the first one told."""
    kept, parked, decided = [(await ledger.submit("parse")).run_id for _ in range(3)]
    leases = {lease.run_id: lease for lease in await ledger.claim("w:1", limit=3)}
    await ledger.ask_tool(leases[parked], name="signal:paid", park=True)
    waiting = await ledger.ask_approval(leases[decided], "Refund?")
    async with with_login(database, "runfold_worker", rights=["submit"]) as url:
        async with Ledger.open(url, PROJECT) as own:
            for run_id in (kept, parked):
                key = f"paid/{run_id}"
                first = await own.signal(run_id, "paid", {"n": 1}, key=key)
                assert (await own.signal(run_id, "paid", {"n": 1}, key=key)) == first
                with pytest.raises(DuplicateKey, match=f"{key}.*event {first.version} of run"):
                    await own.signal(run_id, "paid", {"n": 2}, key=key)
                with pytest.raises(DuplicateKey, match=key):
                    await own.signal(waiting.run_id, "paid", {"n": 1}, key=key)
                with pytest.raises(DuplicateKey, match=key):
                    await own.signal(run_id, "sent", {"n": 1}, key=key)
            await ledger.complete(leases[kept])
            assert (await own.signal(kept, "paid", {"n": 1}, key=f"paid/{kept}")).is_terminal
            with pytest.raises(IllegalTransition, match="is completed and cannot become signalled"):
                await own.signal(kept, "paid", {"n": 1})
            with pytest.raises(RunNotFound):
                await own.signal(UUID("01890a5d-ac96-774b-bcce-b302099a8057"), "paid")
        await grant(connection, login_of(url), ["decide"])
        async with Ledger.open(url, PROJECT) as own:
            [*_, asked] = await ledger.history(decided)
            assert isinstance(asked, ApprovalRequested)
            for _ in range(2):
                done = await own.approve(asked, actor="ann", reason="fine", key="decided")
                assert done.available_at is not None


@handler("asks")
async def asks(ctx: Context) -> Any:
    return await ctx.child("part", 8)


async def test_a_worker_that_may_not_read_takes_no_output_for_one_that_it_does_not_see(
    database: str, ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    """It waits for the right, as for anything that the deployment lacks."""
    run = await ledger.submit("asks")
    async with (
        with_login(database, "runfold_worker", rights=("submit", "work")) as url,
        Ledger.open(url, PROJECT) as own,
        working(own, asks),
    ):
        await reached(ledger, run, State.WAITING_TOOL)
        [child] = await ledger.claim("w:1", kinds=["part"])
        await ledger.complete(child, 16)
        await sweep(ledger)  # by one who may read
        await reached(ledger, run, State.RUNNING)
        await grant(connection, login_of(url), WORKING)

        assert (await ended(ledger, run)).output == 16
