"""Waiting for tools and for people: held or parked, answered once, and never for ever."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from runfold.ledger import Lease, Ledger, Run, State
from runfold.ledger.errors import (
    AttemptsExhausted,
    DuplicateKey,
    IllegalTransition,
    InvalidValue,
    LeaseLost,
    VersionConflict,
)
from runfold.ledger.events import (
    ApprovalExpired,
    ApprovalGranted,
    ApprovalLapsed,
    ApprovalRejected,
    ApprovalRequested,
    NoteAdded,
    SignalReceived,
    ToolCompleted,
    ToolFailed,
    ToolRequested,
)
from runfold.ledger.lifecycle import DEADLINE_PASSED
from tests.support.clock import set_clock
from tests.support.runs import TINY, claimed, event_count, newest, types, waiting
from tests.support.waiting import lapsed, passed


async def answered_yes(ledger: Ledger, lease: Lease, output: Any) -> Run:
    """Answer what a parked run waits for: a tool, or a person."""
    run = await ledger.get(lease.run_id)
    if run.state == State.WAITING_APPROVAL:
        return await ledger.approve(run, actor="ann", output=output)
    return await ledger.transition(run.run_id, State.RUNNING, output=output, actor="ann")


async def test_a_held_tool_call_keeps_the_lease_and_its_answer_takes_the_run_on_at_once(
    ledger: Ledger,
) -> None:
    lease = await claimed(ledger)

    run = await ledger.transition(
        lease, State.WAITING_TOOL, name="wc", content={"input": ["wc", "-l"]}
    )
    asked = await newest(ledger, lease.run_id, ToolRequested)
    again = await ledger.transition(
        lease, State.RUNNING, name="wc", output={"lines": 3}, cost_usd_delta=0.5
    )
    answer = await newest(ledger, lease.run_id, ToolCompleted)

    assert (run.state, run.token, run.worker_id, run.is_parked) == (
        State.WAITING_TOOL,
        lease.token,
        "w:1",
        False,
    )
    assert (asked.name, asked.input, asked.token, asked.lease_until) == (
        "wc",
        ["wc", "-l"],
        2,
        lease.until,
    )
    assert (again.state, again.token, again.attempt_count) == (State.RUNNING, lease.token, 1)
    assert (answer.name, answer.output, answer.state, answer.cost_usd) == (
        "wc",
        {"lines": 3},
        "running",
        Decimal("0.5"),
    )
    assert (again.output, again.available_at) == (None, None)


async def test_a_tool_that_answers_with_an_error_leaves_the_decision_to_the_worker(
    ledger: Ledger,
) -> None:
    lease = await waiting(ledger, State.WAITING_TOOL, park=False)

    run = await ledger.transition(
        lease, State.RUNNING, error_code="E-EXIT-1", error_detail="no such file"
    )
    event = await newest(ledger, lease.run_id, ToolFailed)

    assert (event.error_code, event.error_detail) == ("E-EXIT-1", "no such file")
    assert (run.state, run.error_code) == (State.RUNNING, None)
    assert (await ledger.transition(lease, State.COMPLETED)).state == State.COMPLETED


async def test_a_parked_run_is_held_by_nobody_and_nobody_can_claim_it(ledger: Ledger) -> None:
    lease = await claimed(ledger, ttl=TINY)

    run = await ledger.transition(lease, State.WAITING_TOOL, park=True)
    await lapsed(ledger, lease)

    assert run.is_parked
    assert (run.token, run.worker_id, run.lease_until, run.available_at) == (None,) * 4
    assert await ledger.claim("w:2", limit=5) == []
    assert await ledger.reap() == []


@pytest.mark.parametrize(
    ("state", "type_"),
    [(State.WAITING_TOOL, "tool.completed"), (State.WAITING_APPROVAL, "approval.granted")],
)
async def test_the_answer_makes_a_parked_run_claimable_without_charging_an_attempt(
    ledger: Ledger, state: State, type_: str
) -> None:
    lease = await waiting(ledger, state, park=True, max_attempts=1)

    answered = await answered_yes(ledger, lease, 7)
    (again,) = await ledger.claim("w:2")
    run = await ledger.get(lease.run_id)

    assert (answered.state, answered.available_at) == (state, answered.updated_at)
    assert answered.token is None
    assert (again.run_id, again.attempt, again.token) == (lease.run_id, 1, answered.version + 1)
    assert (run.state, run.attempt_count, run.available_at) == (State.RUNNING, 1, None)
    assert (await types(ledger, lease.run_id))[-2:] == [type_, "lease.acquired"]
    assert (await ledger.transition(again, State.COMPLETED)).state == State.COMPLETED


async def test_a_parked_tool_that_failed_is_claimable_too(ledger: Ledger) -> None:
    lease = await waiting(ledger, State.WAITING_TOOL, park=True)

    await ledger.transition(lease.run_id, State.RUNNING, error_code="E-EXIT-1", actor="tool")
    event = await newest(ledger, lease.run_id, ToolFailed)
    (again,) = await ledger.claim("w:2")

    assert (event.state, event.error_code, event.actor) == (None, "E-EXIT-1", "tool")
    assert again.attempt == 1


@pytest.mark.parametrize("state", [State.WAITING_TOOL, State.WAITING_APPROVAL])
async def test_a_second_answer_is_refused_and_appends_nothing(ledger: Ledger, state: State) -> None:
    lease = await waiting(ledger, state, park=True)
    await answered_yes(ledger, lease, "first")
    before = await event_count(ledger)

    with pytest.raises(IllegalTransition, match="answered before"):
        await ledger.transition(lease.run_id, State.RUNNING, output="second", actor="bob")

    assert await event_count(ledger) == before


async def test_a_second_decision_is_refused_whatever_it_says(ledger: Ledger) -> None:
    lease = await waiting(ledger, State.WAITING_APPROVAL, park=True)
    await ledger.approve(await ledger.get(lease.run_id), actor="ann")
    before = await event_count(ledger)

    with pytest.raises(IllegalTransition, match="answered before"):
        await ledger.approve(await ledger.get(lease.run_id), actor="bob")
    with pytest.raises(IllegalTransition, match="answered before"):
        await ledger.reject(await ledger.get(lease.run_id), actor="bob", reason="no")
    note = await newest(ledger, lease.run_id, NoteAdded)

    assert await event_count(ledger) == before + 2
    assert (note.actor, str(note.text)[:21], str(note.text)[-23:]) == (
        "bob",
        "decision refused, no:",
        " (the reason given: no)",
    )


async def test_an_answered_run_can_still_be_called_off(ledger: Ledger) -> None:
    lease = await waiting(ledger, State.WAITING_TOOL, park=True)
    await ledger.transition(lease.run_id, State.RUNNING, actor="tool")

    run = await ledger.cancel(lease.run_id, actor="ann")

    assert (run.state, run.available_at) == (State.CANCELLED, None)
    assert await ledger.claim("w:2") == []


async def test_an_answered_run_that_loses_its_next_worker_is_requeued_like_any_other(
    ledger: Ledger,
) -> None:
    lease = await waiting(ledger, State.WAITING_TOOL, park=True, max_attempts=2)
    await ledger.transition(lease.run_id, State.RUNNING, actor="tool")
    (again,) = await ledger.claim("w:2", ttl=TINY)
    await ledger.append(again, NoteAdded(text="begun"))
    await lapsed(ledger, again)

    (reaped,) = await ledger.reap()
    (third,) = await ledger.claim("w:3")

    assert (reaped.state, reaped.attempt_count) == (State.PENDING, 1)
    assert third.attempt == 2


# -- approvals -------------------------------------------------------------------------------------


async def test_a_request_for_approval_says_what_is_asked_and_until_when(ledger: Ledger) -> None:
    lease = await claimed(ledger)

    run = await ledger.transition(
        lease, State.WAITING_APPROVAL, park=True, name="spend", wait=timedelta(hours=1),
        wait_outcome="timeout",
        content={"prompt": "Spend 5 $?", "show": {"sum": 5}},
    )  # fmt: skip
    event = await newest(ledger, lease.run_id, ApprovalRequested)

    assert event.recorded_at is not None
    assert run.wait_until == event.wait_until == event.recorded_at + timedelta(hours=1)
    assert (event.name, event.prompt, event.show) == ("spend", "Spend 5 $?", {"sum": 5})
    assert (event.wait_outcome, event.token) == ("timeout", None)


async def test_a_parked_approval_records_who_granted_it_and_why(ledger: Ledger) -> None:
    lease = await waiting(ledger, State.WAITING_APPROVAL, park=True, wait=3600)

    run = await ledger.approve(await ledger.get(lease.run_id), actor="ann", reason="within budget")
    event = await newest(ledger, lease.run_id, ApprovalGranted)

    assert (event.actor, event.reason, event.state) == ("ann", "within budget", None)
    assert (run.available_at, run.wait_until) == (run.updated_at, None)


async def test_a_held_approval_goes_on_at_once_under_the_same_lease(ledger: Ledger) -> None:
    lease = await waiting(ledger, State.WAITING_APPROVAL, park=False, wait=3600)

    run = await ledger.approve(await ledger.get(lease.run_id), actor="ann", reason="ok")
    event = await newest(ledger, lease.run_id, ApprovalGranted)
    (beaten,) = await ledger.heartbeat([lease])

    assert (run.state, run.token, run.worker_id, run.wait_until) == (
        State.RUNNING,
        lease.token,
        "w:1",
        None,
    )
    assert (event.actor, event.reason, event.token) == ("ann", "ok", lease.token)
    assert not beaten.lost
    assert (await ledger.transition(lease, State.COMPLETED)).attempt_count == 1


@pytest.mark.parametrize("park", [False, True])
async def test_a_rejection_cancels_the_run_and_records_who_and_why(
    ledger: Ledger, *, park: bool
) -> None:
    lease = await waiting(ledger, State.WAITING_APPROVAL, park=park)

    run = await ledger.reject(await ledger.get(lease.run_id), actor="bob", reason="too dear")
    event = await newest(ledger, lease.run_id, ApprovalRejected)

    assert (event.actor, event.reason, event.state) == ("bob", "too dear", State.CANCELLED)
    assert (run.state, run.token, run.completed_at) == (State.CANCELLED, None, event.recorded_at)
    with pytest.raises(LeaseLost):
        await ledger.transition(lease, State.RUNNING)
    assert await ledger.claim("w:2") == []


async def test_there_is_nothing_to_decide_where_no_approval_is_awaited(ledger: Ledger) -> None:
    running = await claimed(ledger)
    waits = await waiting(ledger, State.WAITING_TOOL, park=True)
    pending = await ledger.submit("parse")
    before = await event_count(ledger)

    for run_id in (running.run_id, waits.run_id, pending.run_id):
        for decide in (ledger.approve, ledger.reject):
            with pytest.raises(IllegalTransition, match="waits for no approval"):
                await decide(await ledger.get(run_id), actor="ann")

    assert await event_count(ledger) == before


async def test_a_decision_about_an_earlier_request_does_not_answer_a_later_one(
    ledger: Ledger,
) -> None:
    lease = await waiting(ledger, State.WAITING_APPROVAL, park=True)
    seen = await ledger.get(lease.run_id)
    shown = await newest(ledger, lease.run_id, ApprovalRequested)
    await ledger.approve(seen, actor="ann")
    (again,) = await ledger.claim("w:2")
    await ledger.transition(again, State.WAITING_APPROVAL, park=True)

    for request in (seen, shown):
        with pytest.raises(IllegalTransition, match="is for another request"):
            await ledger.approve(request, actor="ann")

    assert (await ledger.get(lease.run_id)).available_at is None
    assert (await types(ledger, lease.run_id))[-2:] == ["note.added", "note.added"]


async def test_a_decision_repeated_with_its_key_is_the_first_one_whatever_the_run_waits_for_now(
    ledger: Ledger,
) -> None:
    lease = await waiting(ledger, State.WAITING_APPROVAL, park=True)
    seen = await ledger.get(lease.run_id)
    first = await ledger.approve(seen, actor="ann", reason="fine", key="click-1")
    (again,) = await ledger.claim("w:2")
    await ledger.transition(again, State.WAITING_APPROVAL, park=True)
    before = await event_count(ledger)

    assert await ledger.approve(seen, actor="ann", reason="fine", key="click-1") == first
    with pytest.raises(DuplicateKey):
        await ledger.reject(seen, actor="ann", reason="fine", key="click-1")

    assert (await ledger.get(lease.run_id)).available_at is None
    assert await event_count(ledger) == before


async def test_a_decision_names_the_run_as_it_was_read_or_the_event_that_asked(
    ledger: Ledger,
) -> None:
    lease = await waiting(ledger, State.WAITING_APPROVAL, park=True)

    with pytest.raises(InvalidValue, match="the run as you read it"):
        await ledger.approve(lease.run_id, actor="ann")  # type: ignore[arg-type]

    request = await newest(ledger, lease.run_id, ApprovalRequested)
    assert (await ledger.approve(request, actor="ann")).available_at is not None


async def test_a_crowd_of_refused_deciders_leaves_a_few_notes(ledger: Ledger) -> None:
    lease = await waiting(ledger, State.WAITING_APPROVAL, park=True)
    seen = await ledger.get(lease.run_id)
    await ledger.approve(seen, actor="ann")

    for number in range(15):
        with pytest.raises(IllegalTransition):
            await ledger.reject(seen, actor=f"late-{number}")

    assert (await types(ledger, lease.run_id)).count("note.added") == 10


UNDECIDED: tuple[tuple[dict[str, Any], State], ...] = (
    ({}, State.CANCELLED),
    ({"wait_outcome": State.CANCELLED}, State.CANCELLED),
    ({"wait_outcome": "timeout"}, State.TIMEOUT),
)


async def test_an_approval_that_nobody_decides_in_time_ends_the_run_as_asked(
    ledger: Ledger, subtests: pytest.Subtests
) -> None:
    for facts, outcome in UNDECIDED:
        for park in [False, True]:
            with subtests.test(f"{facts}, park={park}"):
                lease = await waiting(ledger, State.WAITING_APPROVAL, park=park, wait=TINY, **facts)
                waits = await ledger.get(lease.run_id)
                await passed(ledger, waits.wait_until)

                (run,) = await ledger.reap()
                event = await newest(ledger, lease.run_id, ApprovalExpired)

                assert (run.state, run.error_code, run.token, run.wait_until) == (
                    outcome,
                    DEADLINE_PASSED,
                    None,
                    None,
                )
                assert run.completed_at == event.recorded_at
                assert "nobody decided" in run.error_detail
                assert (event.actor, event.compensates) == ("reaper", None if park else lease.token)
                with pytest.raises(IllegalTransition, match=outcome):
                    await ledger.approve(await ledger.get(lease.run_id), actor="late")


@pytest.mark.parametrize("park", [False, True])
async def test_an_approval_that_lapses_leaves_the_run_open_and_takes_no_decision_afterwards(
    ledger: Ledger, *, park: bool
) -> None:
    lease = await waiting(
        ledger, State.WAITING_APPROVAL, park=park, wait=TINY, wait_outcome="lapsed"
    )
    waits = await ledger.get(lease.run_id)
    await passed(ledger, waits.wait_until)
    with pytest.raises(IllegalTransition, match="the time for an answer is over"):
        await ledger.approve(waits, actor="late")

    (run,) = await ledger.reap()
    event = await newest(ledger, lease.run_id, ApprovalLapsed)

    assert (event.actor, event.error_code, event.token) == ("reaper", DEADLINE_PASSED, run.token)
    assert "nobody decided until" in str(event.error_detail)
    assert (run.wait_until, run.error_code) == (None, None)
    assert (run.state, run.token, run.worker_id, run.lease_until, run.available_at) == (
        (State.WAITING_APPROVAL, None, None, None, event.recorded_at)
        if park
        else (State.RUNNING, lease.token, lease.worker_id, waits.lease_until, None)
    )
    for decide in (ledger.approve, ledger.reject):
        with pytest.raises(IllegalTransition):
            await decide(await ledger.get(lease.run_id), actor="late")
    assert await ledger.reap() == []


async def test_the_holder_of_an_approval_that_lapsed_goes_on_under_its_lease(
    ledger: Ledger,
) -> None:
    lease = await waiting(
        ledger, State.WAITING_APPROVAL, park=False, wait=TINY, wait_outcome="lapsed"
    )
    await passed(ledger, (await ledger.get(lease.run_id)).wait_until)
    await ledger.reap()

    assert (await ledger.complete(lease, output=1)).state == State.COMPLETED


async def test_an_approval_that_lapses_after_its_holder_died_is_requeued_as_any_run_that_runs(
    ledger: Ledger,
) -> None:
    lease = await waiting(
        ledger, State.WAITING_APPROVAL, park=False, ttl=TINY, wait=TINY, wait_outcome="lapsed"
    )
    await lapsed(ledger, lease)
    await passed(ledger, (await ledger.get(lease.run_id)).wait_until)

    [run] = await ledger.reap()
    assert (run.state, run.token) == (State.RUNNING, lease.token)
    [run] = await ledger.reap()
    assert (run.state, run.token) == (State.PENDING, None)


async def test_a_remark_that_comes_between_reading_and_deciding_does_not_stand_in_the_way(
    ledger: Ledger,
) -> None:
    lease = await waiting(ledger, State.WAITING_APPROVAL, park=True)
    read = await ledger.get(lease.run_id)
    await ledger.append(lease.run_id, NoteAdded(text="one"))
    await ledger.approve(read, actor="ann")

    assert (await types(ledger, lease.run_id))[3:] == ["note.added", "approval.granted"]


@pytest.mark.parametrize("park", [False, True])
async def test_a_decision_after_its_time_is_refused_and_noted_before_any_reaper_comes(
    ledger: Ledger, *, park: bool
) -> None:
    lease = await waiting(ledger, State.WAITING_APPROVAL, park=park, wait=TINY)
    await passed(ledger, (await ledger.get(lease.run_id)).wait_until)

    for decide in (ledger.approve, ledger.reject):
        with pytest.raises(IllegalTransition, match="the time for an answer is over"):
            await decide(await ledger.get(lease.run_id), actor="late", reason="was away")

    assert (await types(ledger, lease.run_id))[3:] == ["note.added", "note.added"]
    (run,) = await ledger.reap()
    assert (run.state, run.error_code) == (State.CANCELLED, DEADLINE_PASSED)


async def test_an_answer_or_a_signal_after_the_waits_time_is_no_answer_and_a_signal_is_kept(
    ledger: Ledger,
) -> None:
    lease = await waiting(ledger, State.WAITING_TOOL, park=True, wait=TINY, name="signal:paid")
    await passed(ledger, (await ledger.get(lease.run_id)).wait_until)

    with pytest.raises(IllegalTransition, match="the time for an answer is over"):
        await ledger.transition(lease.run_id, State.RUNNING, output=1)
    run = await ledger.signal(lease.run_id, "paid", 2)

    assert (run.state, run.available_at) == (State.WAITING_TOOL, None)
    assert (await types(ledger, lease.run_id))[3:] == ["signal.received"]
    (run,) = await ledger.reap()
    assert run.available_at is not None


async def test_the_holder_ends_its_run_also_after_the_waits_time(ledger: Ledger) -> None:
    lease = await waiting(ledger, State.WAITING_APPROVAL, park=False, wait=TINY)
    await passed(ledger, (await ledger.get(lease.run_id)).wait_until)

    assert (await ledger.transition(lease, State.CANCELLED)).state == State.CANCELLED


@pytest.mark.parametrize("by", ["answer", "signal"])
async def test_an_answer_or_a_signal_within_the_waits_time_is_the_answer(
    ledger: Ledger, by: str
) -> None:
    lease = await waiting(ledger, State.WAITING_TOOL, park=True, wait=3_600, name="signal:paid")

    if by == "signal":
        run = await ledger.signal(lease.run_id, "paid", 2)
    else:
        run = await ledger.transition(lease.run_id, State.RUNNING, output=2)

    assert run.available_at is not None
    assert (await types(ledger, lease.run_id))[3:] == ["tool.completed"]


async def test_a_decision_in_time_takes_the_deadline_away(ledger: Ledger) -> None:
    lease = await claimed(ledger)
    await ledger.transition(lease, State.WAITING_APPROVAL, park=True, wait=60)
    await ledger.approve(await ledger.get(lease.run_id), actor="ann")
    await set_clock(ledger.pool, timedelta(seconds=61))

    assert await ledger.reap() == []
    assert len(await ledger.claim("w:2")) == 1


async def test_an_approval_without_a_deadline_waits_on(ledger: Ledger) -> None:
    lease = await claimed(ledger)
    run = await ledger.transition(
        lease, State.WAITING_APPROVAL, park=True, wait_outcome="timeout", expected_version=2
    )

    asked = await newest(ledger, run.run_id, ApprovalRequested)
    assert (run.wait_until, asked.wait_until, asked.wait_outcome) == (None, None, None)
    assert asked.based_on == 2
    assert await ledger.reap() == []


async def test_a_retry_after_a_parked_wait_counts_the_attempt_once(ledger: Ledger) -> None:
    lease = await waiting(ledger, State.WAITING_TOOL, park=True, max_attempts=1)
    await ledger.transition(lease.run_id, State.RUNNING, actor="tool")
    (again,) = await ledger.claim("w:2")

    with pytest.raises(AttemptsExhausted) as caught:
        await ledger.retry(again)

    assert (caught.value.attempt_count, caught.value.max_attempts) == (1, 1)


async def test_a_crowd_of_signals_to_one_run_all_arrive_and_each_is_given_once(
    ledger: Ledger,
) -> None:
    lease = await claimed(ledger)

    await asyncio.gather(*(ledger.signal(lease.run_id, "line", number) for number in range(300)))

    received = [
        event for event in await ledger.history(lease.run_id) if isinstance(event, SignalReceived)
    ]
    assert sorted(event.value for event in received) == list(range(300))  # type: ignore[type-var]


async def test_a_signal_that_meets_a_run_as_it_parks_is_its_answer_or_is_kept_before_it(
    ledger: Ledger,
) -> None:
    for _ in range(10):
        lease = await claimed(ledger)
        seen = (await ledger.get(lease.run_id)).version
        parking = ledger.transition(
            lease, State.WAITING_TOOL, name="signal:go", park=True, expected_version=seen
        )
        parked, sent = await asyncio.gather(
            parking, ledger.signal(lease.run_id, "go", 7), return_exceptions=True
        )
        assert isinstance(sent, Run)
        kinds = (await types(ledger, lease.run_id))[2:]
        if isinstance(parked, VersionConflict):  # the waiter looks again, and finds it
            assert kinds == ["signal.received"]
            await ledger.transition(lease, State.COMPLETED)
        else:
            assert kinds == ["tool.requested", "tool.completed"]
            [again] = await ledger.claim("w:2")
            await ledger.transition(again, State.COMPLETED)
