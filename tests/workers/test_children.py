"""A run that waits for its children: each answers once, whatever dies."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

import pytest

from runfold.ledger import Ledger, Run, State, Transition
from runfold.ledger.errors import (
    DecisionRefused,
    InvalidValue,
)
from runfold.ledger.events import (
    RunRetried,
    StepCompleted,
    ToolRequested,
)
from runfold.workers import (
    ChildFailed,
    Context,
    Fail,
    Retry,
    handler,
)
from runfold.workers.duties.reaper import Reaper
from runfold.workers.journal.children import sweep
from runfold.workers.journal.fanout import WINDOW, Fanout
from tests.support.databases import PROJECT
from tests.support.runs import types
from tests.support.short_beats import ledger, parked, short_beats, square
from tests.support.waiting import BOUND, until
from tests.support.working import AT_ONCE, done, ended, working

__all__ = ["ledger", "short_beats"]


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
        await until(lambda: parked(ledger, run))
        leaves = await ledger.claim("leaves", limit=branches, kinds=["leaf"])
        await ledger.transition_many(
            [Transition(leaf, State.COMPLETED, output=leaf.input) for leaf in leaves]
        )
        await sweep(ledger)
        run = await ended(ledger, run)
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


async def test_children_other_than_those_of_an_earlier_attempt_fail_the_attempt(
    ledger: Ledger,
) -> None:
    @handler("does without")
    async def does_without(ctx: Context) -> Any:
        with suppress(InvalidValue):
            await ctx.children("square", [1])
        return await ctx.step("after", lambda: "what no later attempt could replay")

    run = await ledger.submit("does without", max_attempts=1)
    earlier = await ledger.submit("square", 2, key=f"{run.run_id}:children:square/1")
    async with working(ledger, does_without):
        over = await ended(ledger, run)

    assert over.state == State.FAILED
    assert "step.completed" not in await types(ledger, run.run_id)
    assert f"such as {earlier.run_id}: compute their inputs in a step" in str(over.error_detail)


async def test_a_child_whose_retry_cancels_it_wakes_its_parent(ledger: Ledger) -> None:
    entered, is_cancelled = asyncio.Event(), asyncio.Event()

    @handler("again")
    async def again(ctx: Context) -> Retry:
        entered.set()
        await is_cancelled.wait()
        return Retry()

    @handler("asks again")
    async def asks_again(ctx: Context) -> str:
        try:
            await ctx.child("again")
        except ChildFailed as error:
            return error.state
        return "completed"

    run = await ledger.submit("asks again")
    async with working(ledger, again, asks_again):
        await asyncio.wait_for(entered.wait(), BOUND)
        await until(lambda: parked(ledger, run))
        [child] = await ledger.runs(kind="again")
        await ledger.cancel(child.run_id, actor="ann")
        is_cancelled.set()
        assert (await ended(ledger, run)).output == "cancelled"


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

        await until(lambda: _known(ledger, "asks-another"))
        await until(child)
        asked = await child()
        assert asked is not None
        with pytest.raises(DecisionRefused):
            await ledger.approve(await ledger.get(asked.run_id), actor="ann")
        await ledger.approve(await ledger.get(asked.run_id), actor="bob")
        assert (await ended(ledger, run)).output == "bob"
    assert (await ledger.history(run.run_id))[0].actor == "ann"


async def _known(ledger: Ledger, kind: str) -> bool:
    return kind in {one.kind for one in await ledger.kinds()}
