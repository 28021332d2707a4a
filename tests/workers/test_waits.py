"""Waits that give the run back: sleeps and signals. Each ends once, whatever dies."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from runfold.ledger import Ledger, Run, State
from runfold.ledger.errors import (
    DuplicateKey,
    IllegalTransition,
    InvalidValue,
    PayloadTooLarge,
)
from runfold.ledger.events import (
    SignalReceived,
    StepCompleted,
    ToolCompleted,
    ToolFailed,
    ToolRequested,
)
from runfold.workers import (
    BlockingContext,
    Context,
    WaitTimedOut,
    handler,
)
from runfold.workers.testing import Kit
from tests.support.clock import set_walking_clock
from tests.support.runs import claimed, types
from tests.support.short_beats import ledger, parked, short_beats, square
from tests.support.waiting import until
from tests.support.working import done, ended, reached, working

__all__ = ["ledger", "short_beats"]


@handler("short sleep")
async def short_sleep(ctx: Context) -> str:
    await ctx.sleep(0.05)
    await ctx.sleep(0.05)
    return "awake"


@handler("long sleep")
async def long_sleep(ctx: Context, seconds: float) -> int:
    await ctx.sleep(seconds)
    return await ctx.step("after", lambda: ctx.attempt)


@handler("blocking waits")
def blocking_waits(ctx: BlockingContext) -> Any:
    ctx.sleep(0.4)
    paid = ctx.wait_for("paid")
    return [paid, ctx.child("square", 3)]


@handler("order")
async def order(ctx: Context) -> list[Any]:
    first = await ctx.wait_for("paid")
    await ctx.step("ship", lambda: None)
    return [first, await ctx.wait_for("paid"), await ctx.wait_for("packed")]


@handler("impatient")
async def impatient(ctx: Context) -> list[Any]:
    try:
        first = await ctx.wait_for("paid", timeout=60)
    except WaitTimedOut as late:
        first = str(late)
    await ctx.step("remind", lambda: None)
    return [first, await ctx.wait_for("paid")]


@handler("blocking impatience")
def blocking_impatience(ctx: BlockingContext) -> str:
    try:
        ctx.wait_for("paid", timeout=0.05)
    except WaitTimedOut:
        return "late"
    return "no"


async def test_a_short_sleep_holds_the_run(ledger: Ledger) -> None:
    run = await done(ledger, short_sleep)
    assert run.output == "awake"
    assert "lease.released" not in await types(ledger, run.run_id)


async def test_a_long_sleep_gives_the_run_back_for_so_long_and_charges_no_attempt(
    ledger: Ledger,
) -> None:
    run = await done(ledger, long_sleep, 0.5)
    history = await ledger.history(run.run_id)
    slept = next(
        event for event in history if isinstance(event, StepCompleted) and event.name == "sleep"
    )
    after = next(
        event for event in history if isinstance(event, StepCompleted) and event.name == "after"
    )

    assert (run.output, run.attempt_count) == (1, 1)
    assert [event.type for event in history].count("lease.released") == 1
    assert slept.recorded_at is not None
    assert after.recorded_at is not None
    assert (after.recorded_at - slept.recorded_at).total_seconds() >= 0.5


async def test_a_sleep_whose_worker_died_ends_at_the_same_time(ledger: Ledger) -> None:
    """The step is recorded, the run not yet given back: the next attempt sleeps only the rest."""
    run = await ledger.submit("long sleep", 0.5)
    [lease] = await ledger.claim("dies", ttl=0.05)
    await ledger.append(lease, StepCompleted(name="sleep", output={"seconds": 0.5}))
    await until(ledger.reap)
    async with working(ledger, long_sleep):
        ended_run = await ended(ledger, run)
    history = await ledger.history(run.run_id)
    assert ended_run.output == 2
    assert [event.name for event in history if isinstance(event, StepCompleted)] == [
        "sleep",
        "after",
    ]


async def test_signals_are_kept_in_order_and_each_is_given_once(ledger: Ledger) -> None:
    run = await ledger.submit("order")
    await ledger.signal(run.run_id, "paid", {"n": 1}, actor="bank")
    async with working(ledger, order):
        await reached(ledger, run, State.WAITING_TOOL)
        await until(lambda: parked(ledger, run))
        kept = await ledger.signal(run.run_id, "packed", "early")
        assert kept.available_at is None
        await ledger.signal(run.run_id, "paid", {"n": 2}, actor="bank", key="second payment")
        again = await ledger.signal(
            run.run_id, "paid", {"n": 2}, actor="bank", key="second payment"
        )
        finished = await ended(ledger, run)

    assert again.run_id == run.run_id
    assert finished.output == [{"n": 1}, {"n": 2}, "early"]
    assert finished.attempt_count == 1
    history = await ledger.history(run.run_id)
    received = [event for event in history if isinstance(event, SignalReceived)]
    assert [(event.name, event.value) for event in received] == [
        ("paid", {"n": 1}), ("packed", "early"),
    ]  # fmt: skip
    assert [event.name for event in history if isinstance(event, ToolRequested)] == [
        "signal:paid", "signal:paid#2", "signal:packed",
    ]  # fmt: skip
    with pytest.raises(DuplicateKey):
        await ledger.signal(run.run_id, "paid", {"n": 3}, key="second payment")
    with pytest.raises(IllegalTransition, match="ended"):
        await ledger.signal(run.run_id, "paid")


async def test_signals_that_come_while_the_run_begins_to_wait_are_not_lost(ledger: Ledger) -> None:
    runs = [await ledger.submit("order") for _ in range(8)]

    async def send(run: Run) -> None:
        for number in range(2):
            await ledger.signal(run.run_id, "paid", number)
        await ledger.signal(run.run_id, "packed", "box")

    async with working(ledger, order):
        await asyncio.gather(*(send(run) for run in runs))
        outputs = [(await ended(ledger, run)).output for run in runs]
    assert outputs == [[0, 1, "box"]] * 8


async def test_a_signal_that_makes_no_sense_is_refused(ledger: Ledger) -> None:
    run = await ledger.submit("order")
    for wrong in ("", "x" * 101, "a\x00"):
        with pytest.raises(InvalidValue):
            await ledger.signal(run.run_id, wrong)
    with pytest.raises(PayloadTooLarge):
        await ledger.signal(run.run_id, "paid", "x" * 70_000)
    assert await types(ledger, run.run_id) == ["run.submitted"]


async def test_a_plain_function_waits_alike(ledger: Ledger) -> None:
    run = await ledger.submit("blocking waits")
    async with working(ledger, blocking_waits, square):
        await ledger.signal(run.run_id, "paid", 5)
        finished = await ended(ledger, run)
    assert finished.output == [5, 9]
    assert finished.attempt_count == 1


async def test_a_signal_to_a_run_that_waits_for_a_tool_is_kept_and_answers_no_tool(
    ledger: Ledger,
) -> None:
    lease = await claimed(ledger)
    await ledger.transition(lease, "waiting_tool", park=True, name="browser")
    await ledger.signal(lease.run_id, "browser", 1)
    history = await ledger.history(lease.run_id)
    assert (await ledger.get(lease.run_id)).available_at is None
    assert not any(isinstance(event, ToolCompleted) for event in history)


async def test_a_wait_that_nobody_answers_ends_by_the_clock_once_and_the_run_goes_on(
    runfold: Kit,
) -> None:
    async with runfold as kit:
        run = await kit.ledger.submit("impatient")
        [waits] = await kit.run_until_idle(impatient)
        assert waits.wait_until is not None
        assert await kit.ledger.reap() == []
        await kit.move_time(61)
        [waits] = await kit.run_until_idle(impatient)
        assert (waits.wait_until, waits.attempt_count) == (None, 1)
        await kit.ledger.signal(run.run_id, "paid", 7)
        assert await kit.run_until_idle(impatient) == []

        assert (await kit.ledger.get(run.run_id)).output == ["nobody answered 'paid' in time", 7]
        events = await kit.assert_history(
            run,
            [
                "run.submitted", "lease.acquired", "tool.requested", "tool.failed",
                "lease.acquired", "step.completed", "tool.requested", "tool.completed",
                "lease.acquired", "run.completed",
            ],
        )  # fmt: skip
        failed = events[3]
        assert isinstance(failed, ToolFailed)
        assert (failed.actor, failed.error_code, failed.state) == ("reaper", "E-RUN-003", None)
        assert "nobody answered until" in str(failed.error_detail)


async def test_a_wait_that_is_over_stays_over_when_the_worker_dies_before_it_goes_on(
    runfold: Kit,
) -> None:
    async with runfold as kit:
        run = await kit.ledger.submit("impatient")
        await kit.run_until_idle(impatient)
        await kit.move_time(61)
        await kit.ledger.reap()
        [lease] = await kit.ledger.claim("dies")
        await kit.lose_lease(lease.run_id)
        await kit.run_until_idle(impatient)
        await kit.ledger.signal(run.run_id, "paid", 7)
        await kit.run_until_idle(impatient)
        after = await kit.ledger.get(run.run_id)
        assert (after.output, after.attempt_count) == (["nobody answered 'paid' in time", 7], 2)


async def test_a_signal_in_time_ends_the_wait_and_nothing_fails_later(runfold: Kit) -> None:
    async with runfold as kit:
        run = await kit.ledger.submit("impatient")
        await kit.run_until_idle(impatient)
        await kit.ledger.signal(run.run_id, "paid", 1)
        await kit.move_time(61)
        assert await kit.ledger.reap() == []
        await kit.ledger.signal(run.run_id, "paid", 2)
        await kit.run_until_idle(impatient)
        assert (await kit.ledger.get(run.run_id)).output == [1, 2]


async def test_a_signal_that_comes_as_the_wait_ends_answers_it_or_is_kept(runfold: Kit) -> None:
    async with runfold as kit:
        first, second = [await kit.ledger.submit("impatient") for _ in range(2)]
        await kit.run_until_idle(impatient)
        ends_at = (await kit.ledger.get(first.run_id)).wait_until
        assert ends_at is not None
        minute = timedelta(minutes=1)
        await set_walking_clock(kit.ledger.pool, ends_at - minute / 2, minute)

        for run in (first, second):
            await kit.ledger.signal(run.run_id, "paid", 7)

        newest = [(await types(kit.ledger, run.run_id))[-1] for run in (first, second)]
        assert newest == ["tool.completed", "signal.received"]


async def test_a_plain_function_learns_of_a_late_answer_too(runfold: Kit) -> None:
    async with runfold as kit:
        run = await kit.ledger.submit("blocking impatience")
        await kit.run_until_idle(blocking_impatience)
        await kit.move_time(1)
        await kit.run_until_idle(blocking_impatience)
        assert (await kit.ledger.get(run.run_id)).output == "late"


async def test_a_held_wait_has_no_end_of_its_own(ledger: Ledger) -> None:
    lease = await claimed(ledger)
    with pytest.raises(InvalidValue, match="parked"):
        await ledger.transition(lease, "waiting_tool", wait=5)
    with pytest.raises(InvalidValue):
        await ledger.transition(lease, "waiting_tool", park=True, wait=-1)
