"""A subscription gives every event once, resumes at its checkpoint and hears new commits."""

from __future__ import annotations

import asyncio

import pytest

from runfold.ledger import Ledger
from runfold.ledger.errors import InvalidValue
from runfold.ledger.events import Event
from tests.support.runs import claimed
from tests.support.waiting import BOUND, until


async def test_it_gives_the_past_and_ends_when_it_is_not_live(ledger: Ledger) -> None:
    lease = await claimed(ledger)
    await ledger.heartbeat([lease])
    await ledger.transition(lease, "completed")

    found = [event.type async for event in ledger.subscribe(live=False)]
    assert found == ["run.submitted", "lease.acquired", "run.completed"]
    assert "lease.heartbeat" in [
        event.type async for event in ledger.subscribe(live=False, heartbeats=True)
    ]
    assert [
        event.type async for event in ledger.subscribe(live=False, types=["lease.heartbeat"])
    ] == ["lease.heartbeat"]
    assert [event.type async for event in ledger.subscribe(live=False, states=["completed"])] == [
        "run.completed"
    ]
    assert [event async for event in ledger.subscribe(live=False, kinds=["other"])] == []


async def test_it_goes_on_after_the_event_that_was_given_last(ledger: Ledger) -> None:
    for _ in range(5):
        await ledger.submit("parse")
    first = ledger.subscribe(live=False)
    given = []
    async for event in first:
        given.append(event.run_id)
        if len(given) == 2:
            break
    await ledger.submit("parse")

    rest = [event.run_id async for event in ledger.subscribe(after=first.checkpoint, live=False)]

    assert len(set(given + rest)) == len(given + rest) == 6


async def test_it_hears_what_is_committed(ledger: Ledger) -> None:
    await ledger.submit("before")
    events = ledger.subscribe(after="now")
    heard: asyncio.Queue[Event] = asyncio.Queue()

    async def listen() -> None:
        async for event in events:
            heard.put_nowait(event)

    listening = asyncio.create_task(listen())
    try:
        await until(lambda: events.checkpoint is not None)
        run = await ledger.submit("after")
        async with asyncio.timeout(BOUND):
            assert (await heard.get()).run_id == run.run_id
    finally:
        listening.cancel()
    assert heard.empty()


async def test_what_makes_no_sense_is_refused_at_once(
    ledger: Ledger, subtests: pytest.Subtests
) -> None:
    for wrong, named in (
        ({"after": "yesterday"}, "yesterday"),
        ({"states": ["done"]}, "done"),
        ({"types": ["x\x00"]}, "type"),
        ({"types": ["run.faild"]}, "run.failed"),
        ({"types": ["run.failed,run.completed"]}, "not an event type"),
        ({"types": "run.failed"}, "must be a list"),
        ({"kinds": [""]}, "kind"),
        ({"kinds": "parse"}, "must be a list"),
    ):
        with subtests.test(f"{wrong}"), pytest.raises(InvalidValue, match=named):
            ledger.subscribe(**wrong)
