"""Calls that a handler gets wrong or makes oddly: the error names them, and no run hangs."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from runfold.ledger import Ledger, Run, State, roles
from runfold.ledger.errors import InvalidValue
from runfold.ledger.events import ToolRequested
from runfold.ledger.lifecycle import HANDLER_FAILED, HISTORY_MISMATCH
from runfold.ledger.run import Receipt
from runfold.workers import BlockingContext, Context, Handler, handler
from tests.support.runs import types
from tests.support.waiting import BOUND, until
from tests.support.working import AT_ONCE, done, ended, given_back, reached, working

ROOT = Path(__file__).parents[2]


class Shy:
    def __repr__(self) -> str:
        raise KeyError


def circle() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


GIVEN: dict[str, Any] = {"bytes": b"\xff", "shy": Shy(), "circle": circle()}


@handler("asks", retry=AT_ONCE)
async def asks(ctx: Context, how: str) -> Any:
    match how:
        case "on_timeout":
            await ctx.approval("Go?", timeout=5, on_timeout="failed")  # type: ignore[call-overload]  # tested
        case "timeout":
            await ctx.approval("Go?", timeout=-5)
        case "signal":
            await ctx.wait_for("a#b")
        case "child":
            await ctx.child(5)  # type: ignore[arg-type]  # what is tested
        case _:
            await ctx.tool("look", len, GIVEN[how])


SENSELESS = (
    ("on_timeout", "on_timeout 'failed': must be cancelled, timeout or lapsed"),
    ("timeout", "timeout -5: must be more than 0"),
    ("signal", "must not contain #"),
    ("child", "kind 5: must be text"),
    ("bytes", "what tool 'look' is given 'tuple': cannot be recorded as JSON"),
    ("shy", "what tool 'look' is given 'tuple': cannot be recorded as JSON: KeyError"),
    ("circle", "what tool 'look' is given 'tuple': cannot be recorded as JSON"),
)


async def test_a_call_that_makes_no_sense_is_named_as_the_handler_wrote_it(
    ledger: Ledger, subtests: pytest.Subtests
) -> None:
    for how, said in SENSELESS:
        with subtests.test(how):
            run = await done(ledger, asks, how, max_attempts=1)

            assert (run.state, run.error_code) == (State.FAILED, HANDLER_FAILED)
            assert said in run.error_detail["message"]


async def test_a_signal_that_no_wait_could_have_is_refused(ledger: Ledger) -> None:
    run = await ledger.submit("asks", "signal")
    with pytest.raises(InvalidValue, match="must not contain #"):
        await ledger.signal(run.run_id, "a#b", 1)


@pytest.mark.slow
def test_a_set_is_recorded_alike_in_every_process() -> None:
    outputs = {
        subprocess.check_output(
            [sys.executable, "-m", "tests.support.printed_sets"],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            text=True,
        )
        for seed in "12"
    }

    in_order = {
        "plain": [1, 2, 10, "ann", "bob", ["x", 1]],
        "nested": [["a", "b", "c"], ["d", "e"]],
        "model": {"names": ["p", "q", "r"], "groups": [{"members": ["y", "z"]}]},
        "root": ["i", "o", "u"],
    }
    assert outputs == {f"{in_order}\n"}


LONG = "a#" * 100


@handler(LONG)
async def long_kind(ctx: Context, given: int) -> int:
    return given + 1


@handler("parent")
async def parent(ctx: Context) -> list[int]:
    found: list[int] = await ctx.children(LONG, [1, 2])
    return [*found, await ctx.child(LONG, 3)]


async def test_a_child_may_be_of_any_kind(ledger: Ledger) -> None:
    run = await ledger.submit("parent")
    async with working(ledger, parent, long_kind):
        assert (await ended(ledger, run)).output == [2, 3, 4]


def paused(kind: str, *, sleeps: bool) -> Handler[..., Any]:
    """Make a handler that first does a step named `sleep`, or sleeps."""

    @handler(kind, retry=AT_ONCE)
    async def does(ctx: Context) -> None:
        if sleeps:
            await ctx.sleep(0)
        else:
            await ctx.step("sleep", lambda: "well")
        await ctx.approval("Go?")

    return does


async def test_a_step_that_became_a_sleep_is_another_call(ledger: Ledger) -> None:
    run = await ledger.submit("k", max_attempts=1)
    async with working(ledger, paused("k", sleeps=False)):
        await reached(ledger, run, State.WAITING_APPROVAL)
    await ledger.approve(await ledger.get(run.run_id), actor="ann")
    async with working(ledger, paused("k", sleeps=True)):
        released = await given_back(ledger, run)

    assert released.error_code == HISTORY_MISMATCH


async def later() -> int:
    return 1


@handler("plain", retry=AT_ONCE)
def plain(ctx: BlockingContext, how: str) -> Any:
    if how == "step":
        return ctx.step("later", later)
    return ctx.tool("later", later)


@pytest.mark.parametrize("how", ["step", "tool"])
async def test_an_async_function_in_a_plain_handler_is_refused_before_it_is_asked_for(
    ledger: Ledger, how: str
) -> None:
    run = await done(ledger, plain, how, max_attempts=1)

    assert run.state == State.FAILED
    assert (
        f"{how} 'later': has an async function, in a plain handler" in run.error_detail["message"]
    )
    assert not any(isinstance(event, ToolRequested) for event in await ledger.history(run.run_id))


@handler("leaves", retry=AT_ONCE)
async def leaves(ctx: Context) -> str:
    asked = asyncio.Event()

    async def look() -> None:
        asked.set()
        await asyncio.Event().wait()

    left = asyncio.create_task(ctx.tool("look", look))
    await asked.wait()
    return "done" if not left.done() else "never"


async def test_a_tool_that_is_left_behind_fails_the_run_and_is_named(ledger: Ledger) -> None:
    run = await done(ledger, leaves)

    assert (run.state, run.error_code) == (State.FAILED, HANDLER_FAILED)
    assert (
        run.error_detail
        == "tool 'look': is still waited for: await every call before the handler returns"
    )


@handler("impatient", retry=AT_ONCE)
async def impatient(ctx: Context) -> str:
    recorder: Any = ctx._recorder  # noqa: SLF001  the answer has to be on its way at a known time
    moved, answering = recorder.writer.move, asyncio.Event()

    async def move(command: Any) -> Receipt:
        receipt: Receipt = await moved(command)
        if command.row.to_state == State.RUNNING:
            answering.set()
            await asyncio.sleep(0.2)
        return receipt

    recorder.writer.move = move
    asking = asyncio.create_task(ctx.tool("look", lambda: 1))
    await answering.wait()
    asking.cancel()
    await asyncio.wait({asking})
    recorder.writer.move = moved
    return "done without"


async def test_a_tool_whose_answer_was_being_written_when_it_was_given_up_is_not_left_behind(
    ledger: Ledger,
) -> None:
    run = await done(ledger, impatient)

    assert (run.state, run.output) == (State.COMPLETED, "done without"), run.error_detail


@handler("watched", retry=AT_ONCE)
def watched(ctx: BlockingContext) -> str:
    refused = threading.Event()

    def tell() -> None:
        while not ctx.cancelled:
            refused.wait(0.01)
        with suppress(BaseException):
            ctx.step("told", lambda: None)
        refused.set()

    entered.set()
    threading.Thread(target=tell).start()
    refused.wait(BOUND)
    return "whole"


async def test_a_refused_call_beside_the_handler_does_not_undo_what_the_handler_returns(
    ledger: Ledger,
) -> None:
    entered.clear()
    run = await ledger.submit("watched")
    async with working(ledger, watched, grace=0) as worker:
        await until(entered.is_set)
        worker.stop()
    assert (await ledger.get(run.run_id)).output == "whole"


@handler("odd", retry=AT_ONCE)
async def odd(ctx: Context, how: str) -> Any:
    if how == "key":
        return ctx.key
    if how == "name":
        return await ctx.step("a#b", later)
    [answer] = await asyncio.gather(ctx.approval("Pay?"))
    return answer


async def test_a_call_that_cannot_be_is_refused_by_its_name(
    ledger: Ledger, subtests: pytest.Subtests
) -> None:
    for how, why in (
        ("key", "call 'ctx.key': belongs to a step or a tool: read it within the function"),
        ("name", "must not contain #"),
        ("beside", "parks the run: ask for it in the handler itself, in no task beside it;"),
    ):
        with subtests.test(how):
            run = await done(ledger, odd, how, max_attempts=1)

            assert run.state == State.FAILED
            assert why in run.error_detail["message"]
            asked = {"step.completed", "step.failed", "tool.requested", "approval.requested"}
            assert not asked & set(await types(ledger, run.run_id))


@handler("asks beside a tool", retry=AT_ONCE)
async def asks_beside_a_tool(ctx: Context) -> None:
    entered, over = asyncio.Event(), asyncio.Event()

    async def look() -> None:
        entered.set()
        await over.wait()

    looking = asyncio.create_task(ctx.tool("look", look))
    await entered.wait()
    with suppress(InvalidValue):
        await ctx.approval("Pay?")
    over.set()
    await looking
    await ctx.step("after", lambda: "what no later attempt could replay")


async def test_a_wait_while_a_tool_is_waited_for_ends_the_attempt_and_says_so(
    ledger: Ledger,
) -> None:
    run = await done(ledger, asks_beside_a_tool, max_attempts=1)

    assert run.state == State.FAILED
    assert "approval 'approval': parks the run" in run.error_detail["message"]
    assert "step.completed" not in await types(ledger, run.run_id)


class Role(StrEnum):
    FINANCE = "finance"


@handler("typed", retry=AT_ONCE)
async def typed(ctx: Context) -> str:
    return (await ctx.approval("Pay?", role=Role.FINANCE)).actor


async def test_a_role_may_be_of_an_enumeration(ledger: Ledger) -> None:
    await roles.grant(ledger.project, "finance", "ann", actor="owner")
    run = await ledger.submit("typed")
    async with working(ledger, typed):
        await reached(ledger, run, State.WAITING_APPROVAL)
        await ledger.approve(await ledger.get(run.run_id), actor="ann")
        assert (await ended(ledger, run)).output == "ann"


entered = asyncio.Event()


@handler("stubborn", retry=AT_ONCE)
async def stubborn(ctx: Context) -> str:
    entered.set()
    with suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    try:
        return await ctx.step("more", lambda: "whole")
    except BaseException:  # what no handler should do
        return "half"


async def test_what_a_handler_returns_after_a_call_was_refused_does_not_count(
    ledger: Ledger,
) -> None:
    entered.clear()
    run = await ledger.submit("stubborn")
    async with working(ledger, stubborn, grace=0) as worker:
        await until(entered.is_set)
        worker.stop()
    given_back: Run = await ledger.get(run.run_id)
    assert (given_back.state, given_back.attempt_count) == (State.PENDING, 0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
async def test_what_is_no_number_is_refused_and_never_recorded_as_null(
    ledger: Ledger, value: float
) -> None:
    @handler("returns")
    async def returns(ctx: Context) -> Any:
        return {"score": value}

    @handler("steps")
    async def steps(ctx: Context) -> Any:
        return await ctx.step("score", lambda: [value])

    returned = await done(ledger, returns, max_attempts=1)
    stepped = await done(ledger, steps, max_attempts=1)

    assert (returned.state, returned.error_code) == (State.FAILED, "E-RUN-006")
    assert stepped.state == State.FAILED
    assert "NaN" in str(returned.error_detail)
    assert "NaN" in str(stepped.error_detail)
