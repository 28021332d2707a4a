"""Giving runs back: released unharmed, or retried after a failure."""

from __future__ import annotations

from datetime import timedelta

import pytest

from runfold.ledger import Ledger, State
from runfold.ledger.errors import AttemptsExhausted, IllegalTransition, InvalidValue, LeaseLost
from runfold.ledger.events import LeaseReleased, RunCancelled, RunRetried, WriteRefused
from tests.support.clock import set_clock
from tests.support.runs import claimed, event_count, newest, superseded, types, waiting
from tests.support.waiting import passed


async def test_a_released_run_is_pending_again_and_the_attempt_is_not_charged(
    ledger: Ledger,
) -> None:
    lease = await claimed(ledger, max_attempts=1)

    run = await ledger.release(lease)
    event = await newest(ledger, lease.run_id, LeaseReleased)
    (again,) = await ledger.claim("w:2")

    assert (run.state, run.attempt_count, run.token, run.worker_id) == (
        State.PENDING,
        0,
        None,
        None,
    )
    assert (run.available_at, run.error_code) == (run.updated_at, None)
    assert (event.compensates, event.actor, event.attempt, event.state) == (
        lease.token,
        "w:1",
        0,
        State.PENDING,
    )
    assert (again.run_id, again.attempt) == (lease.run_id, 1)


async def test_a_run_can_be_released_any_number_of_times(ledger: Ledger) -> None:
    lease = await claimed(ledger, max_attempts=1)

    for _ in range(5):
        await ledger.release(lease)
        (lease,) = await ledger.claim("w:1")

    assert lease.attempt == 1
    assert (await ledger.transition(lease, State.COMPLETED)).attempt_count == 1


async def test_a_released_run_may_be_given_back_for_later(ledger: Ledger) -> None:
    lease = await claimed(ledger)

    run = await ledger.release(lease, delay=timedelta(seconds=60))
    early = await ledger.claim("w:2")
    await set_clock(ledger.pool, timedelta(seconds=61))

    assert run.available_at == run.updated_at + timedelta(seconds=60)
    assert early == []
    assert len(await ledger.claim("w:2")) == 1


@pytest.mark.parametrize("state", [State.WAITING_TOOL, State.WAITING_APPROVAL])
async def test_a_held_wait_can_be_released_and_its_deadline_goes_with_it(
    ledger: Ledger, state: State
) -> None:
    wait = {"wait": 0.05} if state == State.WAITING_APPROVAL else {}
    lease = await waiting(ledger, state, park=False, **wait)
    waits = await ledger.get(lease.run_id)

    run = await ledger.release(lease)
    if waits.wait_until is not None:
        await passed(ledger, waits.wait_until)

    assert (run.state, run.wait_until) == (State.PENDING, None)
    assert await ledger.reap() == []


async def test_a_retry_charges_the_attempt_and_waits(ledger: Ledger) -> None:
    lease = await claimed(ledger, max_attempts=2)

    run = await ledger.retry(lease, delay=60, error_code="E-NET", error_detail={"host": "x"})
    event = await newest(ledger, lease.run_id, RunRetried)
    early = await ledger.claim("w:2")
    await set_clock(ledger.pool, timedelta(seconds=61))
    (again,) = await ledger.claim("w:2")

    assert (run.state, run.attempt_count, run.token) == (State.PENDING, 1, None)
    assert run.available_at == run.updated_at + timedelta(seconds=60)
    assert (run.error_code, run.error_detail) == ("E-NET", {"host": "x"})
    assert (event.compensates, event.error_code, event.error_detail) == (
        lease.token,
        "E-NET",
        {"host": "x"},
    )
    assert early == []
    assert again.attempt == 2


async def test_a_run_that_succeeds_after_a_retry_has_no_error_left(ledger: Ledger) -> None:
    lease = await claimed(ledger)
    await ledger.retry(lease, error_code="E-NET", error_detail="lost")
    (again,) = await ledger.claim("w:2")

    run = await ledger.transition(again, State.COMPLETED, output=1)

    assert (run.error_code, run.error_detail, run.output) == (None, None, 1)


async def test_without_attempts_left_a_retry_is_refused_and_appends_nothing(ledger: Ledger) -> None:
    lease = await claimed(ledger, max_attempts=2)
    await ledger.retry(lease)
    (last,) = await ledger.claim("w:1")
    before = await event_count(ledger)

    with pytest.raises(AttemptsExhausted) as caught:
        await ledger.retry(last, error_code="E")

    assert (caught.value.run_id, caught.value.attempt_count, caught.value.max_attempts) == (
        lease.run_id,
        2,
        2,
    )
    assert await event_count(ledger) == before
    assert (await ledger.transition(last, State.FAILED, error_code="E")).state == State.FAILED


async def test_a_retry_of_a_run_that_somebody_called_off_cancels_it_on_the_last_attempt_too(
    ledger: Ledger,
) -> None:
    """Also while it waits for an approval, where no other run is retried."""
    for lease in (
        await claimed(ledger, max_attempts=1),
        await waiting(ledger, State.WAITING_APPROVAL, park=False, max_attempts=1),
    ):
        await ledger.cancel(lease.run_id, actor="ann")

        run = await ledger.retry(lease, error_code="E", error_detail="lost")

        assert (run.state, run.token, run.attempt_count) == (State.CANCELLED, None, 1)
        assert (await types(ledger, lease.run_id))[-1] == "run.cancelled"


async def test_a_release_is_possible_on_the_last_attempt(ledger: Ledger) -> None:
    lease = await claimed(ledger, max_attempts=2)
    await ledger.retry(lease)
    (last,) = await ledger.claim("w:1")

    run = await ledger.release(last)
    (again,) = await ledger.claim("w:1")

    assert run.attempt_count == 1
    assert again.attempt == 2


@pytest.mark.parametrize("operation", ["release", "retry"])
async def test_a_zombie_can_give_nothing_back(ledger: Ledger, operation: str) -> None:
    old, new = await superseded(ledger)

    for _ in range(2):
        with pytest.raises(LeaseLost):
            await getattr(ledger, operation)(old)
    event = await newest(ledger, old.run_id, WriteRefused)

    assert event.token == old.token
    assert (await types(ledger, old.run_id)).count("write.refused") == 1
    assert (await ledger.get(old.run_id)).token == new.token


@pytest.mark.parametrize("operation", ["release", "retry"])
async def test_a_finished_run_cannot_be_given_back(ledger: Ledger, operation: str) -> None:
    lease = await claimed(ledger)
    await ledger.transition(lease, State.COMPLETED)

    with pytest.raises(LeaseLost):
        await getattr(ledger, operation)(lease)

    assert (await ledger.get(lease.run_id)).state == State.COMPLETED


@pytest.mark.parametrize("operation", ["release", "retry"])
async def test_a_run_that_somebody_asked_to_cancel_is_cancelled_when_it_is_given_back(
    ledger: Ledger, operation: str
) -> None:
    lease = await claimed(ledger)
    await ledger.cancel(lease.run_id, actor="ann")

    run = await getattr(ledger, operation)(lease, delay=5)
    event = await newest(ledger, lease.run_id, RunCancelled)

    assert (run.state, run.available_at, run.token) == (State.CANCELLED, None, None)
    assert event.compensates == lease.token
    assert await ledger.claim("w:2") == []


async def test_a_retry_while_waiting_for_approval_is_no_legal_move(ledger: Ledger) -> None:
    lease = await waiting(ledger, State.WAITING_APPROVAL, park=False)
    before = await event_count(ledger)

    with pytest.raises(IllegalTransition) as caught:
        await ledger.retry(lease)

    assert (caught.value.from_state, caught.value.to_state) == (
        State.WAITING_APPROVAL,
        State.PENDING,
    )
    assert await event_count(ledger) == before


async def test_a_delay_that_makes_no_sense_is_refused(ledger: Ledger) -> None:
    lease = await claimed(ledger)

    for delay in (-1, float("nan"), float("inf"), timedelta(days=9999)):
        for operation in (ledger.release, ledger.retry):
            with pytest.raises(InvalidValue, match="delay"):
                await operation(lease, delay=delay)

    assert (await ledger.get(lease.run_id)).token == lease.token
