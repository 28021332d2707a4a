"""Calling runs off: at once where nobody holds them, by request where somebody does."""

from __future__ import annotations

import pytest

from runfold.ledger import Ledger, State
from runfold.ledger.errors import IllegalTransition, InvalidValue, RunNotFound
from runfold.ledger.events import CancelRequested, RunCancelled
from runfold.ledger.lifecycle import TERMINAL, WAITING
from tests.support.runs import brought_to, claimed, event_count, newest, types, waiting


async def test_a_pending_run_is_cancelled_at_once(ledger: Ledger) -> None:
    submitted = await ledger.submit("parse", delay=60)

    run = await ledger.cancel(str(submitted.run_id), actor="ann", reason="no need")
    event = await newest(ledger, run.run_id, RunCancelled)

    assert (run.state, run.completed_at, run.available_at) == (
        State.CANCELLED,
        event.recorded_at,
        None,
    )
    assert (event.actor, event.reason, event.error_code) == ("ann", "no need", None)
    assert await ledger.claim("w:1") == []


@pytest.mark.parametrize("state", sorted(WAITING))
async def test_a_parked_run_is_cancelled_at_once(ledger: Ledger, state: State) -> None:
    lease = await waiting(ledger, state, park=True)

    run = await ledger.cancel(lease.run_id, actor="ann")

    assert run.state == State.CANCELLED
    assert (await types(ledger, lease.run_id))[-1] == "run.cancelled"


async def test_a_held_run_is_asked_to_stop_and_goes_on_until_its_worker_obeys(
    ledger: Ledger, subtests: pytest.Subtests
) -> None:
    for state in (State.RUNNING, *sorted(WAITING)):
        with subtests.test(f"{state}"):
            run_id, lease = await brought_to(ledger, state)
            assert lease is not None

            run = await ledger.cancel(run_id, actor="ann", reason="no need")
            event = await newest(ledger, run_id, CancelRequested)
            (beaten,) = await ledger.heartbeat([lease])
            done = await ledger.transition(beaten, State.CANCELLED)

            assert (run.state, run.token, run.cancel_requested_at) == (
                state,
                lease.token,
                event.recorded_at,
            )
            assert (event.actor, event.reason, event.state) == ("ann", "no need", None)
            assert beaten.cancel_requested
            assert (done.state, done.cancel_requested_at) == (State.CANCELLED, event.recorded_at)


async def test_asking_twice_is_one_request(ledger: Ledger) -> None:
    lease = await claimed(ledger)
    first = await ledger.cancel(lease.run_id, actor="ann")

    again = await ledger.cancel(lease.run_id, actor="bob", reason="hurry")

    assert again == first
    assert (await types(ledger, lease.run_id)).count("cancel.requested") == 1


async def test_a_worker_may_still_complete_a_run_that_it_was_asked_to_cancel(
    ledger: Ledger,
) -> None:
    lease = await claimed(ledger)
    await ledger.cancel(lease.run_id)

    run = await ledger.transition(lease, State.COMPLETED)

    assert run.state == State.COMPLETED
    assert await ledger.reap() == []


async def test_a_request_is_not_lost_when_the_worker_parks_the_run(ledger: Ledger) -> None:
    lease = await claimed(ledger)
    await ledger.cancel(lease.run_id, actor="ann")
    await ledger.transition(lease, State.WAITING_TOOL, park=True)

    (run,) = await ledger.reap()

    assert (run.state, run.error_code) == (State.CANCELLED, None)
    assert run.error_detail == "cancelled as requested"
    assert (await types(ledger, lease.run_id))[-2:] == ["tool.requested", "run.cancelled"]


async def test_a_request_reaches_the_worker_that_takes_the_run_after_its_answer(
    ledger: Ledger,
) -> None:
    lease = await claimed(ledger)
    assert not lease.cancel_requested
    await ledger.cancel(lease.run_id, actor="ann")
    await ledger.transition(lease, State.WAITING_TOOL, park=True)
    await ledger.transition(lease.run_id, State.RUNNING, actor="ann")

    [again] = await ledger.claim("w:2")

    assert again.cancel_requested


async def test_a_parked_run_that_was_asked_to_cancel_is_cancelled_at_once_by_a_second_request(
    ledger: Ledger,
) -> None:
    lease = await claimed(ledger)
    await ledger.cancel(lease.run_id, actor="ann")
    await ledger.transition(lease, State.WAITING_APPROVAL, park=True)

    assert (await ledger.cancel(lease.run_id, actor="ann")).state == State.CANCELLED


async def test_a_finished_run_cannot_be_called_off(
    ledger: Ledger, subtests: pytest.Subtests
) -> None:
    for state in sorted(TERMINAL):
        with subtests.test(f"{state}"):
            run_id, _ = await brought_to(ledger, state)
            before = await event_count(ledger)

            with pytest.raises(IllegalTransition) as caught:
                await ledger.cancel(run_id, actor="ann")

            assert (caught.value.from_state, caught.value.to_state) == (state, State.CANCELLED)
            assert await event_count(ledger) == before


async def test_the_one_who_cancels_has_a_name(ledger: Ledger) -> None:
    run = await ledger.submit("parse")

    with pytest.raises(InvalidValue, match="actor"):
        await ledger.cancel(run.run_id, actor="")
    await ledger.cancel(run.run_id)

    assert (await newest(ledger, run.run_id, RunCancelled)).actor == ledger.actor


async def test_a_run_of_another_project_cannot_be_called_off(ledger: Ledger, database: str) -> None:
    run = await ledger.submit("parse")

    async with Ledger.open(database, "other", create_project=True) as other:
        with pytest.raises(RunNotFound):
            await other.cancel(run.run_id)

    assert await ledger.get(run.run_id) == run
