"""Refused writes are on record, and no caller hides or exhausts the record."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from runfold.ledger import Ledger, State
from runfold.ledger.errors import LeaseLost
from runfold.ledger.events import NoteAdded, WriteRefused
from runfold.ledger.postgres.urls import driver_url
from tests.support.databases import PROJECT
from tests.support.logins import login_of, with_login
from tests.support.runs import abandoned, claimed, superseded


async def test_an_older_token_of_the_same_worker_is_refused_by_every_function(
    ledger: Ledger,
) -> None:
    """As when a worker forgets a lease, and claims the same run again."""
    older = await abandoned(ledger, "w:1")
    await ledger.reap()
    [newer] = await ledger.claim("w:1")
    assert (newer.run_id, newer.token > older.token) == (older.run_id, True)

    [beat] = await ledger.heartbeat([older])
    assert beat.lost
    for call in (
        ledger.transition(older, State.COMPLETED),
        ledger.append(older, NoteAdded(text="late")),
        ledger.release(older),
        ledger.retry(older),
    ):
        with pytest.raises(LeaseLost):
            await call
    run = await ledger.get(newer.run_id)
    assert (run.state, run.token) == (State.RUNNING, newer.token)
    assert (await ledger.transition(newer, State.COMPLETED)).state == State.COMPLETED


async def test_no_token_is_not_that_of_a_run_that_nobody_holds(
    ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    """A run that is parked still knows the credential of its last lease."""
    lease = await claimed(ledger)
    await ledger.transition(lease, State.WAITING_TOOL, park=True)
    before = await ledger.get(lease.run_id)
    for call in (
        "heartbeat('test', ARRAY[$1::uuid], '{NULL}', '{1 min}', '{NULL}')",
        "requeue('test', 'lease.released', ARRAY[$1::uuid], '{NULL}', NULL, NULL, NULL, '{NULL}')",
    ):
        assert await connection.fetch(f"SELECT * FROM ledger.{call}", lease.run_id) == []
    assert await ledger.get(lease.run_id) == before


async def test_one_of_two_leases_with_one_number_is_given_back(ledger: Ledger) -> None:
    given, kept = await claimed(ledger), await claimed(ledger)
    assert given.token == kept.token

    await ledger.release(given)

    assert (await ledger.get(given.run_id)).state == State.PENDING
    assert (await ledger.get(kept.run_id)).token == kept.token


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
