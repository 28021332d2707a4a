"""The context records results once, gives the run back on waits, refuses a foreign history."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from runfold.ledger import Ledger, State
from runfold.ledger.errors import DecisionRefused, IllegalTransition
from runfold.ledger.events import (
    ApprovalGranted,
    ApprovalRequested,
    NoteAdded,
    RunRetried,
    StepCompleted,
    ToolFailed,
    ToolRequested,
)
from runfold.ledger.operations.decide import shown_sha256
from runfold.workers import (
    BlockingContext,
    Cancel,
    Context,
    Decision,
    Fail,
    Handler,
    Retry,
    StepError,
    ToolError,
    handler,
)
from tests.support.runs import types
from tests.support.waiting import until
from tests.support.working import AT_ONCE, done, ended, given_back, reached, working

calls: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def _fresh_calls() -> None:
    calls.clear()


@dataclass
class Found:
    """A step's result."""

    lines: int


async def count_lines(path: str) -> Found:
    calls["count"] += 1
    return Found(len(path))


def price(found: Found) -> Decimal:
    calls["price"] += 1
    return Decimal(found.lines)


@handler("steps", retry=AT_ONCE)
async def steps(ctx: Context, path: str) -> Decimal:
    found = await ctx.step("count", count_lines, path)
    assert isinstance(found, Found)
    again = await ctx.step("count", count_lines, path + "!")
    cost = await ctx.step("price", price, again)
    if ctx.attempt == 1:
        raise ValueError("after the steps\x00")
    return cost


async def test_a_step_is_done_once_and_its_result_comes_from_history_afterwards(
    ledger: Ledger,
) -> None:
    run = await done(ledger, steps, "a.py")
    history = await ledger.history(run.run_id)
    recorded = {event.name: event.output for event in history if isinstance(event, StepCompleted)}
    (retried,) = (event for event in history if isinstance(event, RunRetried))

    assert (run.output, run.attempt_count, run.step_count) == ("5", 2, 3)
    assert calls == {"count": 2, "price": 1}
    assert recorded == {"count": {"lines": 4}, "count#2": {"lines": 5}, "price": "5"}
    assert retried.error_code == "E-RUN-004"
    assert isinstance(retried.error_detail, dict)
    assert (retried.error_detail["type"], retried.error_detail["message"]) == (
        "ValueError",
        "after the steps\\x00",
    )
    assert "in steps" in str(retried.error_detail["traceback"])
    assert "attempt.py" not in str(retried.error_detail["traceback"])


@handler("plain-steps", retry=AT_ONCE)
def plain_steps(ctx: BlockingContext, path: str) -> int:
    found = ctx.step("count", lambda: Counter([path]))
    answer = ctx.tool("ask", lambda: ctx.key)
    ctx.note("half way")
    ctx.cost(0.5, steps=2)
    ctx.log.info("here")
    assert answer.endswith(":ask")
    if ctx.attempt == 1:
        raise OSError("no")
    return sum(found.values())


async def test_a_plain_handler_has_the_same_calls_in_its_thread(ledger: Ledger) -> None:
    run = await done(ledger, plain_steps, "a.py")

    assert (run.output, run.attempt_count, run.cost_usd, run.step_count) == (1, 2, Decimal(1), 6)
    assert Counter(await types(ledger, run.run_id)) == {
        "run.submitted": 1, "lease.acquired": 2, "step.completed": 1, "tool.requested": 1,
        "tool.completed": 1, "note.added": 3, "run.retried": 1, "run.completed": 1,
    }  # fmt: skip


@handler("failing", retry=AT_ONCE)
async def failing(ctx: Context) -> str:
    async def fails() -> None:
        calls["fails"] += 1
        ctx.cost(0.25)
        raise LookupError("nothing there")

    try:
        await ctx.step("look", fails)
    except StepError as error:
        caught = (error.name, error.error_type, error.message)
    await ctx.step("else", lambda: None)
    if ctx.attempt < 3:
        raise ValueError
    return " ".join(caught)


async def test_a_failure_that_the_handler_went_on_from_is_raised_from_history_too(
    ledger: Ledger,
) -> None:
    run = await done(ledger, failing)

    assert (run.output, run.attempt_count) == ("look LookupError nothing there", 3), (
        run.error_detail
    )
    assert calls == {"fails": 1}
    assert (run.cost_usd, run.step_count) == (Decimal("0.25"), 1)


@handler("stubborn", retry=AT_ONCE)
async def stubborn(ctx: Context) -> int:
    def fails_twice() -> int:
        calls["tries"] += 1
        if calls["tries"] < 3:
            raise TimeoutError
        return calls["tries"]

    return await ctx.step("try", fails_twice)


async def test_a_failure_that_ended_the_attempt_is_tried_again(ledger: Ledger) -> None:
    run = await done(ledger, stubborn)

    assert (run.output, run.attempt_count) == (3, 3)
    retried = [event for event in await ledger.history(run.run_id) if isinstance(event, RunRetried)]
    assert [event.error_detail["type"] for event in retried] == ["TimeoutError"] * 2  # type: ignore[index,call-overload]  # JSON


async def test_when_no_attempt_is_left_the_run_fails_with_the_error(ledger: Ledger) -> None:
    run = await done(ledger, stubborn, max_attempts=2)

    assert (run.state, run.error_code, run.error_detail["type"]) == (
        State.FAILED,
        "E-RUN-004",
        "TimeoutError",
    )


@handler("tools", retry=AT_ONCE)
async def tools(ctx: Context) -> str:
    async def ask(question: str) -> str:
        calls[ctx.key] += 1
        ctx.cost(0.1, steps=1)
        return question.upper()

    async def refuse() -> None:
        raise PermissionError("not you")

    answer: str = await ctx.tool("ask", ask, "why")
    try:
        await ctx.tool("refuse", refuse)
    except ToolError as error:
        answer += error.error_type
    if ctx.attempt == 1:
        raise ValueError
    return answer


async def test_a_tool_is_waited_for_and_its_answer_recorded_once(ledger: Ledger) -> None:
    run = await done(ledger, tools)
    history = await ledger.history(run.run_id)
    asked = [event for event in history if isinstance(event, ToolRequested)]

    assert (run.output, run.cost_usd, run.step_count) == ("WHYPermissionError", Decimal("0.1"), 2)
    assert calls == {f"{run.run_id}:ask": 1}
    assert [(event.name, event.input, event.state) for event in asked] == [
        ("ask", ["why"], State.WAITING_TOOL),
        ("refuse", [], State.WAITING_TOOL),
        ("refuse", [], State.WAITING_TOOL),
    ]
    failed = [event for event in history if isinstance(event, ToolFailed)]
    assert [(event.name, event.error_code) for event in failed] == [("refuse", "E-RUN-004")] * 2


@handler("outside")
async def outside(ctx: Context) -> list[Any]:
    def order() -> str:
        calls[ctx.key] += 1
        return "order-7"

    return [await ctx.tool("ship", order, park=True), await ctx.tool("sign", None, park=True)]


async def test_a_parked_tool_call_gives_the_run_back_until_somebody_answers(ledger: Ledger) -> None:
    run = await ledger.submit("outside")
    async with working(ledger, outside):
        waits = await reached(ledger, run, State.WAITING_TOOL)
        await ledger.transition(
            run.run_id, State.RUNNING, output={"shipped": True}, actor="carrier"
        )

        async def waits_again() -> bool:
            found = await ledger.get(run.run_id)
            return found.is_parked and found.available_at is None

        await until(waits_again)
        await ledger.transition(run.run_id, State.RUNNING, output="ann", actor="carrier")
        after = await ended(ledger, run)

    assert waits.is_parked
    assert (after.output, after.attempt_count) == ([{"shipped": True}, "ann"], 1)
    assert calls == {f"{run.run_id}:ship": 1}


@handler("refund")
async def refund(ctx: Context, amount: int) -> dict[str, Any]:
    await ctx.step("check", lambda: calls.update(["check"]))
    decision = await ctx.approval(f"Refund ${amount}?", show={"amount": amount}, timeout=60)
    assert isinstance(decision, Decision)
    return {"by": decision.actor, "why": decision.reason, "value": decision.value}


async def test_an_approval_parks_the_run_and_any_worker_goes_on_after_a_yes(ledger: Ledger) -> None:
    run = await ledger.submit("refund", 250)
    async with working(ledger, refund, worker_id="w:1"):
        waits = await reached(ledger, run, State.WAITING_APPROVAL)
    await ledger.approve(
        await ledger.get(run.run_id), actor="ann", reason="customer called", output={"limit": 300}
    )
    async with working(ledger, refund, worker_id="w:2"):
        after = await ended(ledger, run)
    history = await ledger.history(run.run_id)
    (asked,) = (event for event in history if isinstance(event, ApprovalRequested))

    assert waits.is_parked
    assert after.output == {"by": "ann", "why": "customer called", "value": {"limit": 300}}
    assert (after.attempt_count, after.step_count, calls) == (1, 1, {"check": 1})
    assert [event.actor for event in history if event.type == "lease.acquired"] == ["w:1", "w:2"]
    assert asked.shown_sha256 == shown_sha256("Refund $250?", {"amount": 250})
    assert (asked.based_on, history[asked.version - 2].version) == (
        asked.version - 1,
        asked.version - 1,
    )


async def test_a_no_ends_the_run_and_a_late_decision_is_refused_and_noted(ledger: Ledger) -> None:
    run = await ledger.submit("refund", 250)
    async with working(ledger, refund):
        await reached(ledger, run, State.WAITING_APPROVAL)
        await ledger.reject(await ledger.get(run.run_id), actor="ann", reason="too much")
        with pytest.raises(IllegalTransition):
            await ledger.approve(await ledger.get(run.run_id), actor="bob", reason="pay it")
    after = await ledger.get(run.run_id)
    note = (await ledger.history(run.run_id))[-1]

    assert after.state == State.CANCELLED
    assert isinstance(note, NoteAdded)
    assert note.actor == "bob"
    assert note.text is not None
    assert note.text.startswith("decision refused, yes: ")
    assert "pay it" in note.text


@handler("careful")
async def careful(ctx: Context) -> str:
    return (await ctx.approval("Launch?", other_person=True)).actor


async def test_an_approval_may_ask_for_another_person_than_the_submitter(ledger: Ledger) -> None:
    run = await ledger.submit("careful")
    async with working(ledger, careful):
        await reached(ledger, run, State.WAITING_APPROVAL)
        with pytest.raises(DecisionRefused):
            await ledger.approve(await ledger.get(run.run_id), actor=ledger.actor)
        assert (await ledger.get(run.run_id)).state == State.WAITING_APPROVAL
        await ledger.approve(await ledger.get(run.run_id), actor="somebody else")
        assert (await ended(ledger, run)).output == "somebody else"
    (granted,) = (
        event for event in await ledger.history(run.run_id) if isinstance(event, ApprovalGranted)
    )
    assert granted.actor == "somebody else"


@handler("payment")
async def payment(ctx: Context) -> list[str]:
    decision = await ctx.approval("Pay?", approvals=2)
    await ctx.tool("wire", lambda: None)
    return [f"{yes.actor} {yes.meaning} {yes.value}" for yes in decision.approvers]


@handler("blocking-payment")
def blocking_payment(ctx: BlockingContext) -> list[str]:
    return [yes.actor for yes in ctx.approval("Pay?", approvals=2).approvers]


async def test_an_approval_by_several_returns_all_of_them_in_every_attempt(ledger: Ledger) -> None:
    run, other = await ledger.submit("payment"), await ledger.submit("blocking-payment")
    async with working(ledger, payment, blocking_payment):
        await reached(ledger, run, State.WAITING_APPROVAL)
        await reached(ledger, other, State.WAITING_APPROVAL)
        first = await ledger.get(run.run_id)
        await ledger.approve(first, actor="ann", output=1, meaning="reviewed")
        assert (await ledger.get(run.run_id)).available_at is None
        await ledger.approve(first, actor="bob", output=2)
        for name in ("ann", "bob"):
            await ledger.approve(await ledger.get(other.run_id), actor=name)
        assert (await ended(ledger, run)).output == ["ann reviewed 1", "bob approved 2"]
        assert (await ended(ledger, other)).output == ["ann", "bob"]


def changed(kind: str, *names: str, approves: str | None = None) -> Handler[..., Any]:
    """Make a handler that asks for these steps, and for an approval."""

    @handler(kind, retry=AT_ONCE)
    async def asks(ctx: Context) -> str:
        for name in names:
            await ctx.step(name, lambda: calls.update([name]))  # noqa: B023  it is called at once
        if approves:
            await ctx.approval(approves)
        return "done"

    return asks


@pytest.mark.parametrize(
    ("after", "recorded", "asked"),
    [
        (changed("k", "two", "one", approves="Go?"), "step 'one'", "step 'two'"),
        (changed("k", "one", approves="Go?"), "step 'two'", "approval 'approval'"),
        (changed("k", "one", "two"), "approval 'approval'", "its end"),
        (changed("k", "one", "two", approves="Stop?"), "an approval of what has SHA-256", "one of"),
    ],
    ids=["order", "gone", "shorter", "shown"],
)
async def test_a_handler_that_no_longer_fits_its_runs_history_gives_the_run_back_and_says_why(
    ledger: Ledger, after: Handler[..., Any], recorded: str, asked: str
) -> None:
    run = await ledger.submit("k", max_attempts=1)
    async with working(ledger, changed("k", "one", "two", approves="Go?")):
        await reached(ledger, run, State.WAITING_APPROVAL)
    await ledger.approve(await ledger.get(run.run_id), actor="ann")
    async with working(ledger, after):
        released = await given_back(ledger, run)

    assert released.error_code == "E-RUN-007"
    assert f"the history has {recorded}" in str(released.error_detail)
    assert f"where the handler has {asked}" in str(released.error_detail)
    assert calls == {"one": 1, "two": 1}


@handler("beside", retry=AT_ONCE)
async def beside(ctx: Context) -> list[int]:
    async def chain(number: int) -> int:
        first = await ctx.step(f"first-{number}", slowly, number)
        answer: int = await ctx.tool(f"second-{number}", slowly, first)
        return answer

    async def slowly(number: int) -> int:
        calls[f"slowly-{number}"] += 1
        await asyncio.sleep(0.01 * (3 - number))
        if ctx.attempt == 1 and number == 2 and calls["slowly-2"] == 2:
            raise ValueError("not yet")
        return number

    found = await asyncio.gather(*(chain(number) for number in range(3)))
    if ctx.attempt == 1:
        raise RuntimeError
    return list(found)


async def test_steps_beside_each_other_are_recalled_in_whatever_order_they_come(
    ledger: Ledger,
) -> None:
    run = await done(ledger, beside)

    assert run.output == [0, 1, 2]
    assert run.attempt_count == 2
    assert calls["slowly-2"] == 3
    assert len([e for e in await ledger.history(run.run_id) if isinstance(e, StepCompleted)]) == 3


@handler("outcomes", retry=AT_ONCE)
async def outcomes(ctx: Context, how: str) -> Any:
    match how:
        case "retry" if ctx.attempt == 1:
            return Retry(after=0.001, error_code="E-BUSY", detail="again")
        case "bad-retry" if ctx.attempt == 1:
            return Retry(after=-1, error_code="E\n", detail=object())
        case "cancel":
            return Cancel("not needed")
        case "bad-fail":
            return Fail("E-BAD", object())
        case "exit":
            raise SystemExit(3)
        case "cancelled":
            asyncio.get_running_loop().call_soon(asyncio.Future[None]().cancel)
            raise asyncio.CancelledError
    return how


ENDS = (
    ("retry", State.COMPLETED, None),
    ("bad-retry", State.COMPLETED, None),
    ("cancel", State.CANCELLED, None),
    ("bad-fail", State.FAILED, "E-BAD"),
    ("exit", State.FAILED, "E-RUN-004"),
    ("cancelled", State.FAILED, "E-RUN-004"),
)


async def test_a_handler_says_how_its_run_ends(ledger: Ledger, subtests: pytest.Subtests) -> None:
    for how, state, code in ENDS:
        with subtests.test(how):
            run = await done(ledger, outcomes, how, max_attempts=2)

            assert (run.state, run.error_code) == (state, code)


async def test_a_step_within_a_step_is_refused(ledger: Ledger) -> None:
    @handler("nested")
    async def nested(ctx: Context) -> None:
        async def outer() -> None:
            await ctx.step("inner", lambda: None)

        await ctx.step("outer", outer)

    run = await done(ledger, nested, max_attempts=1)

    assert (run.state, run.error_detail["type"]) == (State.FAILED, "InvalidValue")
