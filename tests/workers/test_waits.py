"""Waits that give the run back: sleeps, signals, children. Each ends once, whatever dies."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest

from runfold.ledger import Ledger, Run, State, Transition
from runfold.ledger.errors import (
    DecisionRefused,
    DuplicateKey,
    IllegalTransition,
    InvalidValue,
    PayloadTooLarge,
)
from runfold.ledger.events import (
    ApprovalLapsed,
    RunRetried,
    SignalReceived,
    StepCompleted,
    ToolCompleted,
    ToolFailed,
    ToolRequested,
)
from runfold.workers import (
    Backoff,
    BlockingContext,
    ChildFailed,
    Context,
    Fail,
    Retry,
    WaitTimedOut,
    handler,
)
from runfold.workers.duties.reaper import Reaper
from runfold.workers.journal.children import sweep
from runfold.workers.journal.fanout import WINDOW, Fanout
from runfold.workers.testing import Kit
from tests.conftest import PROJECT
from tests.support.runs import claimed, types
from tests.support.waiting import until
from tests.support.working import done, ended, reached, working

AT_ONCE = Backoff(first=0, jitter=0)


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


@handler("square")
async def square(ctx: Context, number: int) -> int:
    return number * number


@handler("broken")
async def broken(ctx: Context) -> Fail:
    return Fail("acme.broken")


@handler("parent", retry=AT_ONCE)
async def parent(ctx: Context, numbers: list[int]) -> int | Retry:
    found = await ctx.children("square", numbers)
    again = await ctx.child("square", 10)
    if ctx.attempt == 1:
        return Retry()
    return int(sum(found) + again)


@handler("crowd")
async def crowd(ctx: Context) -> int:
    return len(await ctx.children("square", [0] * 10_001))


@handler("unlucky parent")
async def unlucky_parent(ctx: Context) -> str:
    try:
        await ctx.child("broken", max_attempts=1)
    except ChildFailed as failed:
        return f"{failed.state} {failed.error_code}"
    return "no"


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


@pytest.fixture
def short_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a long sleep be one of more than a fifth of a second."""
    monkeypatch.setenv("RUNFOLD_HEARTBEAT_SECONDS", "0.2")
    monkeypatch.setenv("RUNFOLD_LEASE_TTL_SECONDS", "5")


@pytest.fixture
async def ledger(short_beats: None, database: str) -> Any:
    """The ledger of the project `test`, under those settings."""
    async with Ledger.open(database, "test") as opened:
        yield opened


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


async def parked(ledger: Ledger, run: Run) -> bool:
    """Whether the run waits and nobody holds it."""
    return (await ledger.get(run.run_id)).is_parked


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


async def test_a_parent_goes_on_with_its_childrens_outputs_and_asks_for_each_once(
    ledger: Ledger,
) -> None:
    run = await ledger.submit("parent", [1, 2, 3])
    async with working(ledger, parent, square):
        finished = await ended(ledger, run)

    assert (finished.output, finished.attempt_count) == (114, 2)
    history = await ledger.history(run.run_id)
    assert [event.error_detail for event in history if isinstance(event, RunRetried)] == [None]
    squares = await ledger.runs(kind="square")
    assert sorted(one.output for one in squares) == [1, 4, 9, 100]
    first = (await ledger.history(squares[0].run_id))[0]
    assert getattr(first, "parent", None) == str(run.run_id)


async def test_children_whose_ids_fit_no_payload_are_found_by_their_number(
    ledger: Ledger,
) -> None:
    small = ledger.settings.model_copy(update={"payload_limit_bytes": 1_000})
    narrow = Ledger(ledger.pool, ledger.project_id, small, ledger.url)
    numbers = list(range(40))
    run = await narrow.submit("parent", numbers)

    async with working(narrow, parent, square):
        finished = await ended(narrow, run)

    assert (finished.output, finished.attempt_count) == (sum(n * n for n in numbers) + 100, 2)
    assert len(await ledger.runs(kind="square")) == len(numbers) + 1
    [asked] = [
        event
        for event in await ledger.history(run.run_id)
        if isinstance(event, StepCompleted) and event.name == "children:square"
    ]
    assert asked.output == {"count": len(numbers)}


@handler("trunk")
async def trunk(ctx: Context, branches: int) -> int:
    return sum(await ctx.children("leaf", list(range(branches))))


@pytest.mark.slow
async def test_a_run_has_ten_thousand_children(unverified_database: str) -> None:
    branches = 10_000  # checking so many runs afterwards would take longer than the test
    async with Ledger.open(unverified_database, PROJECT) as ledger, working(ledger, trunk):
        run = await ledger.submit("trunk", branches)
        await until(lambda: parked(ledger, run), 60)
        leaves = await ledger.claim("leaves", limit=branches, kinds=["leaf"])
        await ledger.transition_many(
            [Transition(leaf, State.COMPLETED, output=leaf.input) for leaf in leaves]
        )
        await sweep(ledger)
        run = await ended(ledger, run, 60)
        history = await ledger.history(run.run_id)

    assert (run.state, run.output) == (State.COMPLETED, sum(range(branches)))
    assert len(history) < 3 * branches / WINDOW


async def test_children_that_end_one_by_one_are_collected_in_their_order(ledger: Ledger) -> None:
    branches = 5
    run = await ledger.submit("trunk", branches)
    async with working(ledger, trunk):
        await until(lambda: parked(ledger, run))
        leaves = await ledger.claim("leaves", limit=branches, kinds=["leaf"])
        for leaf in leaves[::-1]:  # the last first, which is the one that is waited for
            await ledger.complete(leaf, leaf.input)
            await sweep(ledger)
            await until(lambda: rests(ledger, run))
        run = await ended(ledger, run)

    assert run.output == sum(range(branches))


async def rests(ledger: Ledger, run: Run) -> bool:
    """Tell whether nobody has anything to do for the run."""
    now = await ledger.get(run.run_id)
    return now.is_terminal or (now.is_parked and now.available_at is None)


async def test_outputs_of_children_that_fit_no_payload_together_are_recorded_apart(
    ledger: Ledger,
) -> None:
    @handler("wide")
    async def wide(_: Context, letter: str) -> str:
        return letter * 20_000

    @handler("tall")
    async def tall(ctx: Context) -> str:
        return "".join(found[0] for found in await ctx.children("wide", list("abcdef")))

    run = await ledger.submit("tall")
    async with working(ledger, tall, wide):
        assert (await ended(ledger, run)).output == "abcdef"


async def test_more_children_than_a_call_takes_are_an_error_that_says_so(ledger: Ledger) -> None:
    run = await ledger.submit("crowd", max_attempts=1)
    async with working(ledger, crowd):
        failed = await ended(ledger, run)

    assert failed.state == State.FAILED
    assert "at most 10,000 children in one call" in str(failed.error_detail)
    assert await ledger.runs(kind="crowd") == [failed]


async def test_a_child_that_fails_is_an_error_of_its_parent(ledger: Ledger) -> None:
    run = await ledger.submit("unlucky parent")
    async with working(ledger, unlucky_parent, broken):
        assert (await ended(ledger, run)).output == "failed acme.broken"


async def test_a_parent_whose_child_was_called_off_by_a_person_is_found_by_the_sweep(
    ledger: Ledger,
) -> None:
    run = await ledger.submit("unlucky parent")
    async with working(ledger, unlucky_parent):
        await until(lambda: parked(ledger, run))
        [child] = await ledger.runs(kind="broken")
        await ledger.cancel(child.run_id, actor="ann", reason="not needed")
        assert (await ledger.get(run.run_id)).is_parked
        reaper = Reaper(ledger, every=0.05, grace=0)
        await until(lambda: swept(reaper, ledger, run))
        assert (await ended(ledger, run)).output == "cancelled None"
    assert await sweep(ledger) == 0


async def swept(reaper: Reaper, ledger: Ledger, run: Run) -> bool:
    """Let the reaper look; tell whether the run has its answer."""
    await reaper.tick()
    return not await parked(ledger, run)


async def test_a_child_that_ends_just_before_its_parent_parks_wakes_it(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = Fanout._look  # noqa: SLF001  the moment between the look and the parking

    async def look_and_let_it_end(fanout: Fanout, children: Sequence[UUID]) -> list[Run]:
        child = await look(fanout, children)
        for lease in await ledger.claim("other", kinds=["broken"]):
            await ledger.transition(lease, "completed")
        return child

    monkeypatch.setattr(Fanout, "_look", look_and_let_it_end)
    run = await ledger.submit("unlucky parent")
    async with working(ledger, unlucky_parent):
        assert (await ended(ledger, run)).output == "no"
    assert "child:broken" in [
        event.name for event in await ledger.history(run.run_id) if isinstance(event, ToolRequested)
    ]


async def test_two_that_answer_for_a_child_at_once_answer_once(ledger: Ledger) -> None:
    run = await ledger.submit("unlucky parent")
    async with working(ledger, unlucky_parent):
        await until(lambda: parked(ledger, run))
    [child] = await ledger.runs(kind="broken")
    await ledger.cancel(child.run_id, actor="ann")

    assert sum(await asyncio.gather(*(sweep(ledger) for _ in range(5)))) == 1
    answers = [
        event
        for event in await ledger.history(run.run_id)
        if event.type in {"tool.completed", "tool.failed"}
    ]
    assert len(answers) == 1


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


@handler("patient")
async def patient(ctx: Context) -> str:
    decision = await ctx.approval("Ship?", timeout=60, on_timeout="lapsed")
    await ctx.step("after", lambda: 1)
    return "nobody" if decision.lapsed else decision.actor


@handler("blocking patience")
def blocking_patience(ctx: BlockingContext) -> bool:
    return ctx.approval("Ship?", timeout=0.5, on_timeout="lapsed").lapsed


async def test_an_approval_that_nobody_decides_returns_to_a_handler_that_asked_for_that(
    runfold: Kit,
) -> None:
    async with runfold as kit:
        run = await kit.ledger.submit("patient")
        [waits] = await kit.run_until_idle(patient)
        assert waits.state == State.WAITING_APPROVAL
        assert await kit.ledger.reap() == []
        await kit.move_time(61)
        assert await kit.run_until_idle(patient) == []

        after = await kit.ledger.get(run.run_id)
        assert (after.output, after.attempt_count, after.error_code) == ("nobody", 1, None)
        events = await kit.assert_history(
            run,
            [
                "run.submitted", "lease.acquired", "approval.requested", "approval.lapsed",
                "lease.acquired", "step.completed", "run.completed",
            ],
        )  # fmt: skip
        lapsed = events[3]
        assert isinstance(lapsed, ApprovalLapsed)
        assert (lapsed.actor, lapsed.error_code, lapsed.state) == ("reaper", "E-RUN-003", None)


async def test_an_approval_that_lapsed_stays_so_when_the_worker_dies_before_it_goes_on(
    runfold: Kit,
) -> None:
    async with runfold as kit:
        run = await kit.ledger.submit("patient")
        await kit.run_until_idle(patient)
        await kit.move_time(61)
        await kit.ledger.reap()
        with pytest.raises(IllegalTransition):
            await kit.approve(run)
        [lease] = await kit.ledger.claim("dies")
        await kit.lose_lease(lease.run_id)
        await kit.run_until_idle(patient)
        after = await kit.ledger.get(run.run_id)
        assert (after.output, after.attempt_count) == ("nobody", 2)


async def test_a_decision_in_time_is_one_though_the_approval_may_lapse(runfold: Kit) -> None:
    async with runfold as kit:
        run = await kit.ledger.submit("patient")
        await kit.run_until_idle(patient)
        await kit.approve(run, actor="ann")
        await kit.move_time(61)
        await kit.run_until_idle(patient)
        assert (await kit.ledger.get(run.run_id)).output == "ann"


async def test_an_approval_returns_to_a_plain_function_too(runfold: Kit) -> None:
    async with runfold as kit:
        run = await kit.ledger.submit("blocking patience")
        await kit.run_until_idle(blocking_patience)
        await kit.move_time(1)
        await kit.run_until_idle(blocking_patience)
        assert (await kit.ledger.get(run.run_id)).output is True


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


async def test_a_tool_of_somebody_elses_that_is_given_a_child_is_left_alone(ledger: Ledger) -> None:
    over = await done(ledger, square, 3)
    foreign = []
    for child in ("Anna", str(over.run_id)):
        await ledger.submit("foreign")
        [lease] = await ledger.claim("elsewhere", kinds=["foreign"])
        await ledger.transition(
            lease,
            State.WAITING_TOOL,
            park=True,
            name="register",
            content={"input": {"child": child}},
        )
        foreign.append(lease.run_id)

    assert await sweep(ledger) == 0
    assert [(await ledger.get(run_id)).state for run_id in foreign] == [State.WAITING_TOOL] * 2


async def test_whoever_submitted_the_parent_may_not_decide_where_another_person_is_asked_for(
    ledger: Ledger,
) -> None:
    @handler("asks-another")
    async def asks_another(ctx: Context) -> str:
        return (await ctx.approval("Pay?", other_person=True)).actor

    @handler("has-asked")
    async def has_asked(ctx: Context) -> Any:
        return await ctx.child("asks-another")

    run = await ledger.submit("has-asked", actor="ann")
    async with working(ledger, asks_another, has_asked):

        async def child() -> Run | None:
            return next(
                iter(await ledger.runs(kind="asks-another", state=State.WAITING_APPROVAL)), None
            )

        await until(lambda: _known(ledger, "asks-another"), 20)
        await until(child, 20)
        asked = await child()
        assert asked is not None
        with pytest.raises(DecisionRefused):
            await ledger.approve(await ledger.get(asked.run_id), actor="ann")
        await ledger.approve(await ledger.get(asked.run_id), actor="bob")
        assert (await ended(ledger, run)).output == "bob"
    assert (await ledger.history(run.run_id))[0].actor == "ann"


async def _known(ledger: Ledger, kind: str) -> bool:
    return kind in {one.kind for one in await ledger.kinds()}
