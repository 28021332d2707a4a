"""A lease is ended once: the same end, sent again because its answer was lost, has one outcome."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from runfold.ledger import Lease, Ledger, Receipt, Run, State, Transition
from runfold.ledger.errors import LeaseLost
from runfold.ledger.events import NoteAdded, StepCompleted
from tests.support.databases import PROJECT
from tests.support.runs import TINY, claimed, types
from tests.support.waiting import lapsed

ENDINGS: dict[str, Callable[[Ledger, Lease], Awaitable[Run]]] = {
    "complete": lambda g, lease: g.complete(lease, {"a": 1}, cost_usd_delta=0.5),
    "fail": lambda g, lease: g.fail(lease, "acme.broken", error_detail="why"),
    "cancel": lambda g, lease: g.transition(lease, State.CANCELLED, reason="as requested"),
    "time out": lambda g, lease: g.transition(lease, State.TIMEOUT),
    "release": lambda g, lease: g.release(lease, delay=60),
    "retry": lambda g, lease: g.retry(lease, delay=60, error_code="acme.again"),
    "park for a tool": lambda g, lease: g.ask_tool(lease, "mail", {"to": "x"}, park=True),
    "park for a person": lambda g, lease: g.ask_approval(lease, "Pay?"),
}
CLOSINGS = "SELECT type FROM ledger.closings($1, ARRAY[$2::uuid], ARRAY[$3::int])"


async def test_an_end_that_is_sent_again_is_the_first_outcome_and_no_late_write(
    ledger: Ledger, subtests: pytest.Subtests
) -> None:
    for name, end in ENDINGS.items():
        with subtests.test(name):
            await ledger.release(await claimed(ledger))  # an earlier lease of the same worker
            [lease] = await ledger.claim("w:1", ttl=60)
            await ledger.ask_tool(lease, "look", {})  # held, which ends no lease
            await ledger.answer(lease, 1)
            first = await end(ledger, lease)
            before = await types(ledger, lease.run_id)

            again = await end(ledger, lease)

            assert again == first
            assert await types(ledger, lease.run_id) == before
            no_lease = await ledger.pool.fetch(CLOSINGS, PROJECT, lease.run_id, lease.token + 1)
            assert no_lease == []


async def test_an_end_sent_again_has_its_first_outcome_also_when_others_took_the_run_on(
    ledger: Ledger,
) -> None:
    lease = await claimed(ledger)
    first = await ledger.retry(lease, error_code="acme.again")
    [heir] = await ledger.claim("w:2")
    await ledger.complete(heir)

    assert await ledger.retry(lease, error_code="acme.again") == first
    assert "write.refused" not in await types(ledger, lease.run_id)


async def test_a_lease_given_back_again_after_a_cancel_finds_its_run_cancelled(
    ledger: Ledger, subtests: pytest.Subtests
) -> None:
    for name in ("release", "retry"):
        with subtests.test(name):
            lease = await claimed(ledger)
            await ledger.cancel(lease.run_id, actor="ann")
            first = await ENDINGS[name](ledger, lease)

            assert await ENDINGS[name](ledger, lease) == first
            assert (await types(ledger, lease.run_id))[-1] == "run.cancelled"


async def test_receipts_of_ends_sent_again_are_those_of_the_first(ledger: Ledger) -> None:
    leases = [await claimed(ledger) for _ in range(3)]
    ends = [Transition(lease, State.COMPLETED, output=7) for lease in leases]

    first = await ledger.transition_many(ends)

    assert await ledger.transition_many(ends) == first
    assert all(isinstance(outcome, Receipt) for outcome in first)


OTHERS: dict[str, dict[str, Any]] = {
    "another output": {"output": 2},
    "another cost": {"output": 1, "cost_usd_delta": 3},
}


@pytest.mark.parametrize("name", OTHERS)
async def test_another_end_of_the_same_lease_is_refused_on_record(
    ledger: Ledger, name: str
) -> None:
    lease = await claimed(ledger)
    await ledger.complete(lease, 1)

    with pytest.raises(LeaseLost):
        await ledger.complete(lease, **OTHERS[name])

    assert (await types(ledger, lease.run_id))[-1] == "write.refused"


async def test_the_end_of_a_lease_that_the_reaper_closed_is_a_late_write(ledger: Ledger) -> None:
    lease = await claimed(ledger, ttl=TINY)
    await lapsed(ledger, lease)
    await ledger.reap()

    assert await ledger.pool.fetch(CLOSINGS, PROJECT, lease.run_id, lease.token) == []
    with pytest.raises(LeaseLost):
        await ledger.complete(lease)
    with pytest.raises(LeaseLost):
        await ledger.release(lease)

    # Nor is it the end of the next lease, which the same worker has ended so.
    [heir] = await ledger.claim(lease.worker_id)
    await ledger.complete(heir)
    with pytest.raises(LeaseLost):
        await ledger.complete(lease)

    assert (await types(ledger, lease.run_id)).count("write.refused") == 2


LATE: dict[str, Callable[[Ledger, Lease], Awaitable[object]]] = {
    **ENDINGS,
    "append": lambda g, lease: g.append(lease, NoteAdded(text="still here")),
    "step": lambda g, lease: g.append(lease, StepCompleted(name="s", output=1)),
    "answer": lambda g, lease: g.answer(lease, 1),
}


async def test_a_lease_of_a_history_that_was_lost_is_not_anothers_with_the_same_token(
    ledger: Ledger, subtests: pytest.Subtests
) -> None:
    """After a fail-over that lost events, two workers hold token 2 of one run."""
    for name, write in LATE.items():
        with subtests.test(name):
            held = await claimed(ledger, "w:new")
            lost = replace(held, worker_id="w:old")

            with pytest.raises(LeaseLost):
                await write(ledger, lost)
            [beaten] = await ledger.heartbeat([lost])

            assert beaten.lost
            events = await ledger.history(held.run_id)
            assert [event.type for event in events[2:]] == ["write.refused", "write.refused"]
            assert {event.actor for event in events[2:]} == {"w:old"}
            assert (await ledger.complete(held)).state == State.COMPLETED


async def test_the_end_of_a_lost_history_is_not_taken_for_anothers_end(ledger: Ledger) -> None:
    held = await claimed(ledger, "w:new")
    await ledger.complete(held, 1)

    with pytest.raises(LeaseLost):
        await ledger.complete(replace(held, worker_id="w:old"), 1)
