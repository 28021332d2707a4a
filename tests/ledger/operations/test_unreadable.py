"""Stored content that cannot be read: its own run says so, and nothing else stops for it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from runfold.ledger import Lease, Ledger, State
from runfold.ledger.errors import InvalidValue
from runfold.ledger.events import OpaqueEvent
from runfold.ledger.lifecycle import INPUT_REFUSED
from runfold.ledger.payload import Unreadable
from runfold.workers import Context, handler
from tests.support.databases import PROJECT
from tests.support.runs import claimed
from tests.support.waiting import lapsed
from tests.support.working import ended, working

POISON = {
    "a lone surrogate": '{"input": "cut \\ud83d"}',
    "too deep": '{"input": ' + "[" * 3_000 + "]" * 3_000 + "}",
    "deeper than the server reads": '{"input": ' + "[" * 4_500 + "]" * 4_500 + "}",
    "too many digits": '{"input": ' + "9" * 5_000 + "}",
}
_SUBMIT = (
    "SELECT run_id FROM ledger.submit($1, 'raw', '{parse}', ARRAY[$2::text], NULL, '{0}', NULL,"
    " '{3}', NULL, ARRAY[$3::interval], NULL)"
)
_END = (
    "SELECT FROM ledger.transition($1, ARRAY[$2], ARRAY[$3::uuid], ARRAY[$4::int], ARRAY[$5], '{}',"
    " '{}', '{}', ARRAY[$6], '{}', '{}', '{}', '{}', '{}', '{}', '{}', ARRAY[$2])"
)


class Careless:
    """A server from before content was checked: whatever is JSON to PostgreSQL is stored."""

    def __init__(self, connection: asyncpg.Connection[Any]) -> None:
        self._connection = connection

    async def submit(self, body: str, deadline: timedelta | None = None) -> UUID:
        run_id: UUID = await self._connection.fetchval(_SUBMIT, PROJECT, body, deadline)
        return run_id

    async def end(self, lease: Lease, state: State, body: str) -> None:
        await self._connection.execute(
            _END, PROJECT, lease.worker_id, lease.run_id, lease.token, state, body
        )


@pytest.fixture
async def careless(connection: asyncpg.Connection[Any]) -> Careless:
    """The functions without their check of content."""
    await connection.execute(
        "CREATE OR REPLACE FUNCTION ledger.check_content(p_bodies text[]) RETURNS boolean"
        " LANGUAGE sql AS 'SELECT true'"
    )
    return Careless(connection)


@pytest.mark.parametrize("name", POISON)
async def test_every_reader_gives_a_value_for_content_that_cannot_be_read(
    ledger: Ledger, careless: Careless, name: str
) -> None:
    run_id = await careless.submit(POISON[name])
    sound = await ledger.submit("parse", "sound")

    assert isinstance((await ledger.get(run_id)).input, Unreadable)
    assert [run.run_id for run in await ledger.runs()] == [sound.run_id, run_id]
    then = (await ledger.get(run_id)).created_at
    assert [run.run_id for run in await ledger.runs(at=then)] == [run_id]
    assert isinstance((await ledger.state_at(run_id, 1)).input, Unreadable)
    [event] = await ledger.history(run_id)
    assert isinstance(event, OpaqueEvent)
    assert event.unreadable
    assert event.type == "run.submitted"
    subscribed = [event.run_id async for event in ledger.subscribe(live=False)]
    assert subscribed == [run_id, sound.run_id]


@pytest.mark.parametrize(
    ("state", "part"), [(State.COMPLETED, "output"), (State.FAILED, "error_detail")]
)
async def test_an_outcome_that_cannot_be_read_is_a_value(
    ledger: Ledger, careless: Careless, state: State, part: str
) -> None:
    for body in POISON.values():
        lease = await claimed(ledger)
        await careless.end(lease, state, body.replace("input", part))

        run = await ledger.get(lease.run_id)
        assert (run.state, type(getattr(run, part))) == (state, Unreadable)
        then = await ledger.state_at(run.run_id, run.version)
        assert isinstance(getattr(then, part), Unreadable)


@pytest.mark.parametrize("name", POISON)
async def test_a_claim_and_a_sweep_are_not_stopped_by_content_that_cannot_be_read(
    ledger: Ledger, careless: Careless, name: str
) -> None:
    overdue = await careless.submit(POISON[name], timedelta(microseconds=1))
    assert [run.run_id for run in await ledger.reap()] == [overdue]
    held = await careless.submit(POISON[name])
    sound = await ledger.submit("parse", "sound")

    leases = await ledger.claim("w:1", limit=2, ttl=0.02)
    assert [lease.run_id for lease in leases] == [held, sound.run_id]
    assert isinstance(leases[0].input, Unreadable)
    assert leases[1].input == "sound"
    for lease in leases:
        await lapsed(ledger, lease)
    assert {run.run_id for run in await ledger.reap()} == {held, sound.run_id}
    assert (await ledger.cancel(held)).state == State.CANCELLED


@handler("parse")
async def parse(ctx: Context, text: str) -> str:
    return text.upper()


async def test_a_worker_fails_the_run_whose_input_it_cannot_read_and_does_the_others(
    ledger: Ledger, careless: Careless
) -> None:
    poison = [await careless.submit(body) for body in POISON.values()]
    sound = await ledger.submit("parse", "sound")

    async with working(ledger, parse):
        assert (await ended(ledger, sound)).output == "SOUND"
        runs = [await ended(ledger, run_id) for run_id in poison]

    assert {(run.state, run.error_code) for run in runs} == {(State.FAILED, INPUT_REFUSED)}
    assert all("cannot be read" in str(run.error_detail) for run in runs)


async def test_what_cannot_be_read_cannot_be_written_again(
    ledger: Ledger, careless: Careless
) -> None:
    poison = await ledger.get(await careless.submit(POISON["too deep"]))

    with pytest.raises(InvalidValue, match="Unreadable"):
        await ledger.submit("parse", poison.input)
