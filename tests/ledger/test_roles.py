"""Who may decide: another person, or one with a role; checked under the lock, and recorded."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from runfold.ledger import Lease, Ledger, Run, State, Transition, roles
from runfold.ledger.errors import (
    AccessDenied,
    DecisionRefused,
    IllegalTransition,
    InvalidValue,
    RoleNotHeld,
)
from runfold.ledger.events import NoteAdded
from runfold.ledger.operations.project import Project
from runfold.ledger.postgres.urls import driver_url
from runfold.ledger.settings import Settings
from runfold.workers import Context, handler
from tests.support.databases import PROJECT
from tests.support.logins import with_login
from tests.support.runs import claimed
from tests.support.waiting import awaited
from tests.support.working import ended, reached, working

WHY: dict[str, Any] = {"actor": "root", "reason": "on call"}


async def asking(ledger: Ledger, *, park: bool = True, **content: Any) -> Lease:
    """Return a run that waits for an approval with these conditions."""
    lease = await claimed(ledger)
    await ledger.transition(
        lease, State.WAITING_APPROVAL, park=park, content={"prompt": "Pay?", **content}
    )
    return lease


async def grant(ledger: Ledger, run_id: UUID, actor: str) -> Run:
    """Grant the approval that the run waits for, whose request is the newest event."""
    return await ledger.approve(await ledger.get(run_id), actor=actor)


@pytest.mark.parametrize("park", [True, False])
async def test_no_way_leads_around_another_persons_decision(ledger: Ledger, *, park: bool) -> None:
    run_id = (await asking(ledger, park=park, other_person=True)).run_id

    for decide in (ledger.approve, ledger.reject):
        with pytest.raises(DecisionRefused, match="another person"):
            await decide(await ledger.get(run_id), actor=ledger.actor, reason="mine")
    for state in (State.RUNNING, State.CANCELLED, State.TIMEOUT):
        now = (await ledger.get(run_id)).version
        for expected in (None, now):
            with pytest.raises(IllegalTransition, match="with approve or reject"):
                await ledger.transition(run_id, state, expected_version=expected)
        [refused] = await ledger.transition_many([Transition(run_id, state, expected_version=now)])
        assert isinstance(refused, IllegalTransition)
    assert (await ledger.get(run_id)).state == State.WAITING_APPROVAL
    notes = [event for event in await ledger.history(run_id) if isinstance(event, NoteAdded)]
    assert [note.actor for note in notes] == [ledger.actor] * 2

    await ledger.approve(await ledger.get(run_id), actor="somebody else")
    assert "approval.granted" in [event.type for event in await ledger.history(run_id)]


async def test_a_role_is_asked_for_under_the_lock_and_counts_from_the_moment_of_its_change(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    run_id = (await asking(ledger, role="finance")).run_id
    await roles.grant(ledger.project, "finance", "ann", **WHY)
    await roles.grant(ledger.project, "other", "bob", **WHY)
    await connection.execute("INSERT INTO ledger.project (project_id) VALUES ('another')")
    await roles.grant(Project(ledger.pool, "another", Settings()), "finance", "bob", **WHY)
    with pytest.raises(DecisionRefused, match="does not have the role") as caught:
        await ledger.approve(await ledger.get(run_id), actor="bob")
    assert caught.value.why == "role"

    # ann's decision waits for the row; meanwhile the role is taken from her.
    async with connection.transaction():
        await connection.execute(
            "SELECT FROM ledger.run_state WHERE run_id = $1 FOR UPDATE", run_id
        )
        await connection.execute(
            "UPDATE ledger.run_state SET priority = priority WHERE run_id = $1", run_id
        )
        deciding = asyncio.create_task(grant(ledger, run_id, "ann"))
        await awaited(connection)
        await roles.revoke(ledger.project, "finance", "ann", **WHY)
    with pytest.raises(DecisionRefused):
        await deciding

    await roles.grant(ledger.project, "finance", "ann", **WHY)
    await ledger.approve(await ledger.get(run_id), actor="ann")


async def test_a_decision_is_judged_and_dated_when_its_lock_is_had(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    run_id = (await asking(ledger, role="finance")).run_id
    other_id = (await asking(ledger, role="finance")).run_id
    await roles.grant(ledger.project, "finance", "ann", **WHY)
    await roles.grant(ledger.project, "finance", "bob", **WHY)

    # Both wait for a row that another only locks, and leaves as it is.
    locked = connection.transaction()
    await locked.start()
    await connection.execute("SELECT FROM ledger.run_state FOR UPDATE")
    revoked = asyncio.create_task(grant(ledger, run_id, "ann"))
    granted = asyncio.create_task(grant(ledger, other_id, "bob"))
    await awaited(connection, 2)
    await roles.revoke(ledger.project, "finance", "ann", **WHY)
    moment = await connection.fetchval("SELECT clock_timestamp()")
    await locked.rollback()

    with pytest.raises(DecisionRefused):
        await revoked
    assert (await granted).updated_at > moment


async def test_every_change_of_a_role_is_recorded_and_made_by_the_owner_alone(
    ledger: Ledger, connection: asyncpg.Connection, database: str
) -> None:
    await roles.grant(ledger.project, "finance", "ann", **WHY)
    await roles.grant(ledger.project, "finance", "ann", **WHY)
    await roles.grant(ledger.project, "finance", "bob", **WHY)
    await roles.revoke(ledger.project, "finance", "ann", **WHY)
    with pytest.raises(RoleNotHeld, match="ann does not have the role 'finance'"):
        await roles.revoke(ledger.project, "finance", "ann", **WHY)

    assert [one.member for one in await roles.members(ledger.pool, PROJECT)] == ["bob"]
    assert await roles.members(ledger.pool, PROJECT, "other") == []
    assert [one.type for one in await roles.history(ledger.pool, PROJECT, "finance")] == [
        "role.granted", "role.granted", "role.granted", "role.revoked",
    ]  # fmt: skip
    for statement in (
        "UPDATE ledger.role_event SET member = 'mallory'",
        "DELETE FROM ledger.role_event",
    ):
        with pytest.raises(asyncpg.PostgresError, match="append-only"):
            await connection.execute(statement)
    for wrong in ("", "x" * 201, "a\x00"):
        with pytest.raises(InvalidValue):
            await roles.grant(ledger.project, wrong, "ann", **WHY)
    async with (
        with_login(database, "runfold_worker", rights=("decide", "work")) as url,
        asyncpg.create_pool(driver_url(url), min_size=1) as pool,
    ):
        with pytest.raises(AccessDenied, match="lacks the right admin"):
            await roles.grant(Project(pool, PROJECT, Settings()), "finance", "mallory", **WHY)
        assert [one.member for one in await roles.members(pool, PROJECT)] == ["bob"]


@handler("payment")
async def payment(ctx: Context) -> str:
    return (await ctx.approval("Pay?", role="finance")).actor


async def test_an_approval_for_a_role_that_nobody_has_waits_for_somebody_and_says_so(
    ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    run = await ledger.submit("payment", max_attempts=1)
    async with working(ledger, payment):
        await reached(ledger, run, State.WAITING_APPROVAL)
        assert "runfold roles grant finance NAME" in capsys.readouterr().err
        await roles.grant(ledger.project, "finance", "ann", **WHY)
        await ledger.approve(await ledger.get(run.run_id), actor="ann")

        assert (await ended(ledger, run)).output == "ann"


@handler("large-payment")
async def large_payment(ctx: Context) -> int:
    return len((await ctx.approval("Pay?", role="finance", approvals=2)).approvers)


async def test_a_role_that_fewer_have_than_must_approve_is_said_and_waits_for_more(
    ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    await ledger.grant_role("finance", "ann")
    run = await ledger.submit("large-payment", max_attempts=1)
    async with working(ledger, large_payment):
        waiting = await reached(ledger, run, State.WAITING_APPROVAL)
        assert "1 of 2 who must approve have the role" in capsys.readouterr().err
        await ledger.grant_role("finance", "bob")
        for name in ("ann", "bob"):
            await ledger.approve(waiting, actor=name)

        assert (await ended(ledger, run)).output == 2


async def test_a_handler_asks_for_somebody_with_a_role(ledger: Ledger) -> None:
    await roles.grant(ledger.project, "finance", "ann", **WHY)
    run = await ledger.submit("payment")
    async with working(ledger, payment):
        await reached(ledger, run, State.WAITING_APPROVAL)
        with pytest.raises(DecisionRefused):
            await ledger.approve(await ledger.get(run.run_id), actor="bob")
        await ledger.approve(await ledger.get(run.run_id), actor="ann")
        assert (await ended(ledger, run)).output == "ann"
