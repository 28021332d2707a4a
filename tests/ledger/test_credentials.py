"""Every write is its credential's: events name it, leases and decisions are bound to it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from runfold.ledger import Lease, Ledger, State
from runfold.ledger.errors import AccessDenied, DecisionRefused, LeaseLost
from runfold.ledger.events import ApprovalGranted, NoteAdded
from runfold.ledger.operations.decide import request
from runfold.ledger.postgres.urls import driver_url
from tests.support.databases import PROJECT
from tests.support.logins import grant, login_of, with_login

WORKING = ("submit", "work", "read", "schedule")


async def test_every_event_names_the_credential_that_wrote_it_and_is_hashed_with_it(
    ledger: Ledger, attacker_url: str
) -> None:
    async with Ledger.open(attacker_url, PROJECT) as own:
        run = await own.submit("parse")
    [submitted] = await ledger.history(run.run_id)

    assert submitted.credential == login_of(attacker_url) == submitted.actor
    assert (await ledger.verify()).ok


async def test_a_lease_is_its_credentials_alone(
    ledger: Ledger, database: str, attacker_url: str
) -> None:
    """The token of another's lease can be read, and is worth nothing."""
    async with (
        with_login(database, "runfold_worker", rights=WORKING) as worker,
        Ledger.open(worker, PROJECT) as held_by,
        Ledger.open(attacker_url, PROJECT) as thief,
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
    assert {event.credential for event in refused} == {login_of(attacker_url)}


async def test_a_lease_is_worth_nothing_without_the_right_to_work(
    ledger: Ledger, database: str, connection: asyncpg.Connection[Any]
) -> None:
    """Also where the login may still submit, and so act on runs that nobody holds."""
    async with (
        with_login(database, "runfold_worker", rights=("submit", "work", "read")) as worker,
        Ledger.open(worker, PROJECT) as own,
    ):
        await own.submit("parse")
        [lease] = await own.claim("w:1", ttl=60)
        await grant(connection, login_of(worker), ("submit", "read"))

        for call in (
            own.transition(lease, State.COMPLETED),
            own.append(lease, NoteAdded(text="mine")),
            own.heartbeat([lease]),
            own.release(lease),
        ):
            with pytest.raises(AccessDenied, match="lacks the right work"):
                await call
    assert (await ledger.get(lease.run_id)).version == lease.token


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
        with pytest.raises(DecisionRefused, match="another person"):
            await asks.approve(waiting, actor="ann")
        with pytest.raises(AccessDenied, match="lacks the right decide"):
            await works.approve(waiting, actor="ann")
        granted = await decides.approve(waiting, actor="ann")

    assert granted.available_at is not None
    [event] = [e for e in await ledger.history(lease.run_id) if e.type == "approval.granted"]
    assert event.credential == login_of(person)


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
