"""A handler meets each error again on replay: every ending is on record and counted once."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

import pytest
from pydantic import BaseModel, Field, SecretStr, field_validator

from runfold.ledger import Lease, Ledger, Run, State
from runfold.ledger.events import LeaseReleased, NoteAdded, StepCompleted, StepFailed, ToolFailed
from runfold.ledger.lifecycle import HANDLER_FAILED, HISTORY_MISMATCH, INPUT_REFUSED
from runfold.workers import BlockingContext, Context, Fail, StepError, ToolError, handler
from runfold.workers.journal.replay import Replay
from runfold.workers.leases.writer import Writer
from tests.support.runs import abandoned, types
from tests.support.waiting import BOUND, lapsed, until
from tests.support.working import AT_ONCE, done, ended, reached, working

if TYPE_CHECKING:
    from runfold.workers.leases.heart import Heart

calls: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def _fresh_calls() -> None:
    calls.clear()


async def never() -> None:
    calls["never"] += 1
    await asyncio.Event().wait()


async def failed(ledger: Ledger, run: Run) -> list[tuple[str | None, Any]]:
    """Return the recorded failures of a run's calls: name and what is said."""
    history = await ledger.history(run.run_id)
    found = [event for event in history if isinstance(event, StepFailed | ToolFailed)]
    return [
        (event.name, event.error_detail["message"])
        for event in found
        if isinstance(event.error_detail, dict)
    ]


# -- an attempt always comes to an ending ----------------------------------------------------------


class Picky(BaseModel):
    at: str

    @field_validator("at")
    @classmethod
    def _check(cls, value: str) -> str:
        raise KeyError(value)


class Mute(Exception):
    def __str__(self) -> str:
        raise TypeError


@handler("picky")
async def picky(ctx: Context, _: Picky) -> None:
    raise AssertionError


@handler("breaks", retry=AT_ONCE)
async def breaks(ctx: Context, how: str) -> None:
    if how == "mute":
        raise Mute
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(1)


async def test_whatever_a_validator_raises_is_a_refused_input(ledger: Ledger) -> None:
    run = await done(ledger, picky, {"at": "z"})

    assert (run.state, run.error_code) == (State.FAILED, INPUT_REFUSED)


@pytest.mark.parametrize(("how", "name"), [("mute", "Mute"), ("cancel", "CancelledError")])
async def test_an_attempt_that_breaks_in_an_odd_way_is_retried_and_ends(
    ledger: Ledger, how: str, name: str
) -> None:
    run = await done(ledger, breaks, how, max_attempts=2)

    assert (run.state, run.error_code, run.error_detail["type"]) == (
        State.FAILED,
        HANDLER_FAILED,
        name,
    )
    assert (await types(ledger, run.run_id)).count("run.retried") == 1


async def test_a_failure_keeps_its_code_without_a_storable_detail_and_has_one_when_none_is_given(
    ledger: Ledger,
) -> None:
    @handler("codes")
    async def codes(ctx: Context, how: str) -> Any:
        return Fail("X-1", object()) if how == "detail" else Fail(None)  # type: ignore[arg-type]  # a mistake of the handler's

    assert (await done(ledger, codes, "detail")).error_code == "X-1"
    assert (await done(ledger, codes, "none")).error_code == HANDLER_FAILED


async def test_nothing_that_a_handler_leaves_behind_does_any_more_work(ledger: Ledger) -> None:
    late = asyncio.Event()
    left: list[asyncio.Task[Any]] = []

    @handler("leaves")
    async def leaves(ctx: Context) -> None:
        async def on() -> None:
            await late.wait()
            await ctx.step("late", lambda: calls.update(["late"]))

        left.append(asyncio.create_task(on()))

    run = await done(ledger, leaves)
    late.set()
    await asyncio.wait(left)

    assert left[0].exception() is not None
    assert calls["late"] == 0
    assert (await types(ledger, run.run_id))[-1] == "run.completed"


async def test_an_attempt_after_a_lost_one_is_on_record_as_begun_before_its_handler_is_called(
    ledger: Ledger,
) -> None:
    lost = await abandoned(ledger, begun=True)
    await ledger.reap()

    @handler("parse")
    async def parse(_: Context) -> list[str]:
        return await types(ledger, lost.run_id)

    async with working(ledger, parse):
        run = await ended(ledger, lost.run_id)

    assert run.output[-2:] == ["lease.acquired", "lease.heartbeat"]


async def test_an_attempt_whose_lease_was_lost_before_it_began_does_nothing(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = await abandoned(ledger, max_attempts=1)
    writer = Writer(ledger, cast("Heart", None), lambda: False)
    assert await writer.begin(lost)
    await lapsed(ledger, lost)
    await ledger.release(lost)
    assert not await writer.begin(lost)

    begin, asked = Writer.begin, asyncio.Event()

    async def taken(self: Writer, lease: Lease) -> bool:
        await ledger.release(lease, delay=3_600)
        began = await begin(self, lease)
        asked.set()
        return began

    @handler("parse")
    async def parse(_: Context) -> None:
        calls["parse"] += 1

    monkeypatch.setattr(Writer, "begin", taken)
    async with working(ledger, parse):
        await asyncio.wait_for(asked.wait(), BOUND)

    assert calls["parse"] == 0
    assert (await ledger.get(lost.run_id)).state == State.PENDING


def test_a_history_says_how_often_its_run_was_given_back_and_why() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    freely, mismatch = (
        LeaseReleased(recorded_at=at, attempt=0, available_at=at, compensates=2, error_code=code)
        for code in (None, HISTORY_MISMATCH)
    )
    result = StepCompleted(name="a")

    assert Replay([mismatch, mismatch]).mismatches == 2
    assert Replay([mismatch, result, mismatch]).mismatches == 1
    assert Replay([freely, freely]).given_back == 2
    assert Replay([freely, result, freely]).given_back == 1
    assert Replay([mismatch, freely]).given_back == 1


# -- calls that end in an odd way ------------------------------------------------------------------


@handler("gives-up", retry=AT_ONCE)
async def gives_up(ctx: Context, call: str) -> str:
    patience = asyncio.timeout(None if ctx.attempt == 1 else 0.05)

    async def begun() -> None:
        patience.reschedule(0)
        await never()

    try:
        async with patience:
            await (ctx.step("a", begun) if call == "step" else ctx.tool("a", begun))
    except TimeoutError:
        said: str = await ctx.step("b", lambda: "went on")
    if ctx.attempt == 1:
        raise RuntimeError
    return said


@pytest.mark.parametrize("call", ["step", "tool"])
async def test_a_call_that_the_handler_gave_up_is_given_up_again(ledger: Ledger, call: str) -> None:
    run = await done(ledger, gives_up, call)

    assert (run.state, run.output, run.attempt_count) == (State.COMPLETED, "went on", 2), (
        run.error_detail
    )
    assert calls["never"] == 1
    assert ("a", "the handler gave the call up") in await failed(ledger, run)


class Order(BaseModel):
    number: int = Field(alias="orderNumber")


class Cat(BaseModel):
    name: str


class Dog(BaseModel):
    name: str


def order() -> Order:
    return Order(orderNumber=7)


def pet() -> Cat | Dog:
    return Dog(name="Rex")


def secret() -> SecretStr:
    return SecretStr("s")


def huge() -> str:
    return "x" * 100_000


def off() -> None:
    raise asyncio.CancelledError


@handler("odd-results", retry=AT_ONCE)
async def odd_results(ctx: Context, call: str) -> list[str]:
    said = []
    for fn in (huge, pet, secret, off):
        try:
            await (ctx.step(fn.__name__, fn) if call == "step" else ctx.tool(fn.__name__, fn))
        except StepError as error:
            said.append(error.name)
    found = await ctx.step("order", order)
    assert found.number == 7
    if ctx.attempt == 1:
        raise RuntimeError
    return said


@pytest.mark.parametrize("call", ["step", "tool"])
async def test_a_result_that_cannot_be_kept_as_it_is_is_a_failure_of_its_call(
    ledger: Ledger, call: str
) -> None:
    run = await done(ledger, odd_results, call)

    assert (run.state, run.output) == (State.COMPLETED, ["huge", "pet", "secret", "off"]), (
        run.error_detail
    )
    said = dict(await failed(ledger, run))
    assert "limit" in said["huge"]
    assert "comes back from its own JSON as something else" in said["pet"]
    assert "comes back from its own JSON as something else" in said["secret"]


@handler("plain-odd", retry=AT_ONCE)
def plain_odd(ctx: BlockingContext) -> list[str]:
    said = []
    for name, fn in (("big", huge), ("raises", lambda: 1 / 0)):
        try:
            ctx.tool(name, fn)
        except ToolError as error:
            said.append(error.name)
    ctx.step("after", lambda: None)
    if ctx.attempt == 1:
        raise RuntimeError
    return said


async def test_a_plain_handler_goes_on_from_such_failures_too(ledger: Ledger) -> None:
    run = await done(ledger, plain_odd)

    assert (run.state, run.output) == (State.COMPLETED, ["big", "raises"]), run.error_detail


@handler("asks", retry=AT_ONCE)
async def asks(ctx: Context) -> str:
    def ask() -> None:
        calls["ask"] += 1
        raise ConnectionError("no route")

    try:
        await ctx.tool("outside", ask, park=True)
    except ToolError as error:
        said = error.error_type
    await ctx.step("b", lambda: None)
    if ctx.attempt == 1:
        raise RuntimeError
    return said


async def test_asking_that_fails_is_the_answer_of_a_parked_tool(ledger: Ledger) -> None:
    run = await done(ledger, asks)

    assert (run.state, run.output, calls["ask"]) == (State.COMPLETED, "ConnectionError", 1), (
        run.error_detail
    )


@handler("cannot-ask", retry=AT_ONCE)
async def cannot_ask(ctx: Context) -> None:
    try:
        await ctx.approval("p", timeout=-1)
    except Exception:
        await ctx.step("instead", lambda: None)


async def test_a_call_that_cannot_be_asked_ends_the_attempt_even_if_the_handler_goes_on(
    ledger: Ledger,
) -> None:
    run = await done(ledger, cannot_ask, max_attempts=1)

    assert (run.state, run.error_detail["type"]) == (State.FAILED, "InvalidValue")
    assert "step.completed" not in await types(ledger, run.run_id)


@handler("beside-fails", retry=AT_ONCE)
async def beside_fails(ctx: Context) -> str:
    def flaky() -> str:
        calls["flaky"] += 1
        if calls["flaky"] == 1:
            raise OSError
        return "fine"

    [found] = await asyncio.gather(ctx.step("a", flaky), return_exceptions=True)
    said = await ctx.step("fallback" if isinstance(found, StepError) else "main", lambda: "kept")
    if ctx.attempt == 1:
        raise RuntimeError
    return said


async def test_a_failure_beside_that_the_handler_went_on_from_is_recalled(ledger: Ledger) -> None:
    run = await done(ledger, beside_fails)

    assert (run.state, run.output, calls["flaky"]) == (State.COMPLETED, "kept", 1), run.error_detail


def threads(ctx: BlockingContext) -> list[str]:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(lambda n: ctx.tool(f"t{n}", lambda: f"r{n}"), range(6)))


async def test_tools_from_several_threads_take_turns(ledger: Ledger) -> None:
    run = await done(ledger, handler("threads")(threads), max_attempts=1)

    assert (run.state, run.output) == (State.COMPLETED, [f"r{n}" for n in range(6)]), (
        run.error_detail
    )


# -- what was spent --------------------------------------------------------------------------------


@handler("spends-first")
async def spends_first(ctx: Context) -> int:
    ctx.cost(1)
    await ctx.step("a", lambda: 1)
    await ctx.approval("go?")
    return 1


async def test_what_is_spent_before_the_first_call_is_counted_once(ledger: Ledger) -> None:
    run = await ledger.submit("spends-first")
    async with working(ledger, spends_first):
        await reached(ledger, run, State.WAITING_APPROVAL)
        await ledger.approve(await ledger.get(run.run_id), actor="ann")
        run = await ended(ledger, run)

    assert (run.state, run.cost_usd) == (State.COMPLETED, Decimal(1))


@handler("pays", retry=AT_ONCE)
async def pays(ctx: Context) -> str:
    ctx.cost(0.5)

    async def pay() -> str:
        ctx.cost(2)
        calls["pay"] += 1
        if calls["pay"] == 1:
            await asyncio.Event().wait()
        return "paid"

    said: str = await ctx.tool("pay", pay)
    if calls["late"] == 0:
        calls["late"] += 1
        raise RuntimeError
    return said


async def test_spending_of_an_attempt_stopped_in_a_tool_is_a_note_and_the_tool_is_asked_again(
    ledger: Ledger,
) -> None:
    run = await ledger.submit("pays")
    async with working(ledger, pays, grace=0):
        await until(lambda: calls["pay"] == 1)
    [note] = [event for event in await ledger.history(run.run_id) if isinstance(event, NoteAdded)]
    async with working(ledger, pays):
        run = await ended(ledger, run)

    assert (note.name, note.cost_usd) == ("spent", Decimal("2.5"))
    assert (run.state, run.output, calls["pay"]) == (State.COMPLETED, "paid", 2), run.error_detail
    assert "step.failed" not in await types(ledger, run.run_id)


@handler("pays plainly", retry=AT_ONCE)
def pays_plainly(ctx: BlockingContext, call: str) -> None:
    def pay() -> None:
        ctx.cost(2)
        calls["pays plainly"] += 1
        while not ctx.cancelled:
            time.sleep(0.01)

    ctx.cost(0.5)
    (ctx.step if call == "step" else ctx.tool)("pay", pay)


@pytest.mark.parametrize("call", ["step", "tool"])
async def test_spending_of_a_call_that_ends_when_its_attempt_has_to_is_a_note(
    ledger: Ledger, call: str
) -> None:
    run = await ledger.submit("pays plainly", call)
    async with working(ledger, pays_plainly, grace=0):
        await until(lambda: calls["pays plainly"] == 1)
    run = await ledger.get(run.run_id)
    assert (run.state, run.cost_usd) == (State.PENDING, Decimal("2.5"))


@handler("pays before it asks", retry=AT_ONCE)
async def pays_before_it_asks(ctx: Context) -> None:
    ctx.cost(1)
    await ctx.approval("x" * 100_000)


async def test_spending_before_a_request_that_cannot_be_recorded_is_counted(
    ledger: Ledger,
) -> None:
    run = await done(ledger, pays_before_it_asks, max_attempts=2)
    assert (run.state, run.cost_usd) == (State.FAILED, Decimal(2))


@handler("refunds", retry=AT_ONCE)
async def refunds(ctx: Context) -> str:
    calls["refunds"] += 1
    ctx.cost(-1)
    return "done"


async def test_a_cost_below_zero_is_the_handlers_error_and_the_history_says_so(
    ledger: Ledger,
) -> None:
    run = await done(ledger, refunds, max_attempts=2)

    assert (run.state, run.error_code, calls["refunds"]) == (State.FAILED, HANDLER_FAILED, 2)
    assert "must be 0 or more" in run.error_detail["message"]


@handler("default")
async def default(ctx: Context, name: str = "nobody") -> str:
    return name


async def test_an_input_that_is_left_out_is_the_handlers_default(ledger: Ledger) -> None:
    assert (await done(ledger, default)).output == "nobody"
    assert (await done(ledger, default, "ann")).output == "ann"


class Slowly:
    """Have a handler's patience end while a write of one method is under way."""

    def __init__(
        self, patience: asyncio.Timeout, holder: Any, method: str, only: Callable[..., bool]
    ) -> None:
        real = getattr(holder, method)

        async def write(*args: Any, **facts: Any) -> Any:
            written = await real(*args, **facts)
            if only(*args) and not patience.expired():
                patience.reschedule(0)
                await asyncio.sleep(0)  # it ends
                await asyncio.sleep(0)  # and the handler is cancelled
            return written

        setattr(holder, method, write)


async def patient(patience: asyncio.Timeout, what: Awaitable[Any]) -> Any:
    try:
        async with patience:
            return await what
    except TimeoutError:
        return "given up"


@handler("impatient", retry=AT_ONCE)
async def impatient(ctx: Context, how: str) -> Any:
    journal: Any = ctx._journal  # noqa: SLF001  a write has to take long at a known point
    patience = asyncio.timeout(None if ctx.attempt == 1 else 0.05)
    if ctx.attempt == 1 and how == "recorded":
        Slowly(
            patience,
            journal.recorder,
            "_until_written",
            lambda *_: journal._names._used.get("a") == 1,  # noqa: SLF001  as above
        )
    if ctx.attempt == 1 and how == "requested":
        Slowly(
            patience,
            journal.recorder.writer,
            "move",
            lambda move, *_: move.row.to_state == State.WAITING_TOOL,
        )
    call = ctx.step("a", lambda: "result") if how == "recorded" else ctx.tool("a", lambda: "result")
    found = await patient(patience, call)
    first = await ctx.step("b", lambda: found)
    if ctx.attempt == 1:
        raise RuntimeError
    return [first, found]


async def test_a_call_is_not_given_up_any_more_when_its_result_is_on_its_way(
    ledger: Ledger,
) -> None:
    run = await done(ledger, impatient, "recorded")

    assert (run.state, run.output) == (State.COMPLETED, ["result", "result"]), run.error_detail


async def test_a_tool_that_is_given_up_while_it_is_asked_for_is_given_up_again(
    ledger: Ledger,
) -> None:
    run = await done(ledger, impatient, "requested")

    assert (run.state, run.output) == (State.COMPLETED, ["given up", "given up"]), run.error_detail
    assert (await types(ledger, run.run_id)).count("tool.failed") == 1


# -- in a task or in none --------------------------------------------------------------------------


@handler("moves", retry=AT_ONCE)
async def moves(ctx: Context, beside_in: int) -> int:
    """Have a task make a call in one attempt, and make it without one in the other."""

    def charge() -> int:
        calls["charge"] += 1
        return calls["charge"]

    calls["moves"] += 1
    charging = ctx.step("charge", charge)
    is_beside = beside_in == calls["moves"]
    charged = await (asyncio.create_task(charging) if is_beside else charging)
    await ctx.step("after", lambda: None)
    if calls["moves"] == 1:
        raise RuntimeError
    return charged


@pytest.mark.parametrize("beside_in", [1, 2])
async def test_a_call_is_found_whether_or_not_a_task_makes_it(
    ledger: Ledger, beside_in: int
) -> None:
    run = await done(ledger, moves, beside_in)
    assert (run.state, run.output, calls["charge"]) == (State.COMPLETED, 1, 1)
