"""A run goes on under the version of its handler that began it, however long it waits for it."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from runfold import Backoff, Context, Handler, Ledger, State, handler
from runfold.ledger.errors import InvalidValue
from runfold.ledger.events import Event, LeaseReleased, StepCompleted
from runfold.ledger.lifecycle import HISTORY_MISMATCH
from runfold.workers import judge
from tests.support.clock import set_clock
from tests.support.runs import types
from tests.support.waiting import until
from tests.support.working import done, ended, given_back, reached, working


def order(version: str | None, *steps: str) -> Handler[..., Any]:
    """Make a version of a handler: it waits for a signal and then does these steps."""

    @handler("order", version=version)
    async def order(ctx: Context) -> str:
        await ctx.step("begin", lambda: "begun")
        await ctx.wait_for("go")
        for step in steps:
            await ctx.step(step, lambda: None)
        return f"done by {version}"

    return order


async def released(ledger: Ledger, run_id: Any) -> list[LeaseReleased]:
    return [event for event in await ledger.history(run_id) if isinstance(event, LeaseReleased)]


async def test_a_run_is_given_back_uncharged_until_a_process_has_its_version(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(judge, "MISMATCHED", Backoff(first=0.1, factor=1.0, jitter=0))
    run = await ledger.submit("order", max_attempts=1)
    async with working(ledger, order("1")):
        await reached(ledger, run, State.WAITING_TOOL)
    await ledger.signal(run.run_id, "go")
    async with working(ledger, order("2")):

        async def looked_twice() -> bool:
            return len(await released(ledger, run.run_id)) > 1

        await until(looked_twice)
    waiting = await ledger.get(run.run_id)
    async with working(ledger, order("1")):
        run = await ended(ledger, run)

    assert (waiting.state, waiting.attempt_count) == (State.PENDING, 0)
    assert (run.state, run.output, run.attempt_count) == (State.COMPLETED, "done by 1", 1)
    [first, *_] = await released(ledger, run.run_id)
    assert first.error_code == HISTORY_MISMATCH
    assert "the history has version '1' where the handler has version '2'" in str(
        first.error_detail
    )
    assert "handler_changed" in capsys.readouterr().err


async def test_a_version_is_recorded_once_with_the_first_call(ledger: Ledger) -> None:
    run = await ledger.submit("order")
    async with working(ledger, order("2024-05", "end")):
        await reached(ledger, run, State.WAITING_TOOL)
        await ledger.signal(run.run_id, "go")
        await ended(ledger, run)

    def version(event: Event) -> Any:
        return getattr(event, "handler_version", None)

    versions = [version(event) for event in await ledger.history(run.run_id)]
    assert [found for found in versions if found] == ["2024-05"]
    [begin, _] = [e for e in await ledger.history(run.run_id) if isinstance(e, StepCompleted)]
    assert begin.handler_version == "2024-05"


async def test_a_run_that_no_version_began_is_taken_up_by_any(ledger: Ledger) -> None:
    run = await ledger.submit("order")
    async with working(ledger, order(None)):
        await reached(ledger, run, State.WAITING_TOOL)
    await ledger.signal(run.run_id, "go")
    async with working(ledger, order("1")):
        assert (await ended(ledger, run)).output == "done by 1"


async def test_a_run_without_calls_on_record_is_begun_anew_by_another_version(
    ledger: Ledger,
) -> None:
    @handler("order", version="1", retry=Backoff(first=60))  # it is cancelled before
    async def broken(_: Context) -> str:
        raise ConnectionError("the bank is away")

    run = await ledger.submit("order")
    async with working(ledger, broken):
        await until(lambda: _retried(ledger, run.run_id))
    await ledger.cancel(run.run_id)

    @handler("order", version="2")
    async def whole(_: Context) -> str:
        return "done by 2"

    assert (await done(ledger, whole)).output == "done by 2"


async def _retried(ledger: Ledger, run_id: Any) -> bool:
    return "run.retried" in await types(ledger, run_id)


async def test_a_run_whose_handler_changed_is_looked_at_ever_more_rarely(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "MISMATCHED", Backoff(first=0.1, factor=2.0, jitter=0))
    run = await ledger.submit("order", max_attempts=1)
    async with working(ledger, order("1")):
        await reached(ledger, run, State.WAITING_TOOL)
    await ledger.signal(run.run_id, "go")

    async def looked_thrice() -> bool:
        return len(await released(ledger, run.run_id)) > 2

    async with working(ledger, order("2")):
        await until(looked_thrice)
    events = await released(ledger, run.run_id)
    delays = [
        (event.available_at - event.recorded_at) / timedelta(seconds=0.1)
        for event in events[:3]
        if event.recorded_at is not None
    ]
    assert [round(delay) for delay in delays] == [1, 2, 4]


async def test_a_person_or_a_deadline_ends_a_run_that_no_process_can_do(ledger: Ledger) -> None:
    called_off = await ledger.submit("order")
    late = await ledger.submit("order", deadline=3_600)
    async with working(ledger, order("1")):
        for run in (called_off, late):
            await reached(ledger, run, State.WAITING_TOOL)
    for run in (called_off, late):
        await ledger.signal(run.run_id, "go")
    async with working(ledger, order("2")):
        for run in (called_off, late):
            await given_back(ledger, run)
        await ledger.cancel(called_off.run_id)
        assert (await ended(ledger, called_off)).state is State.CANCELLED
    await set_clock(ledger.pool, timedelta(hours=2))
    [run] = await ledger.reap()
    assert (run.run_id, run.state) == (late.run_id, State.CANCELLED)  # it was pending


@pytest.mark.parametrize("version", ["", 3, "x" * 1_000])
def test_a_version_is_a_short_text(version: Any) -> None:
    with pytest.raises(InvalidValue, match="version"):
        handler("order", version=version)


class Amount(BaseModel):
    """What an order's second version takes and gives."""

    cents: int


def typed(*, takes: Any, gives: Any, result: Any) -> Handler[..., Any]:
    """Make a handler that takes an input and whose step gives a result."""

    async def pay() -> Any:
        return result

    async def order(ctx: Context, amount: Any) -> str:
        await ctx.step("pay", pay)
        await ctx.wait_for("go")
        return f"done with {amount}"

    pay.__annotations__["return"] = gives
    order.__annotations__["amount"] = takes
    return handler("order")(order)


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        (typed(takes=Amount, gives=int, result=1), "input"),
        (typed(takes=int, gives=Amount, result=Amount(cents=1)), "step 'pay'"),
    ],
    ids=["input", "result"],
)
async def test_a_run_whose_input_or_results_no_longer_fit_is_given_back(
    ledger: Ledger, after: Handler[..., Any], reason: str
) -> None:
    run = await ledger.submit("order", 7, max_attempts=1)
    before = typed(takes=int, gives=int, result=1)
    async with working(ledger, before):
        await reached(ledger, run, State.WAITING_TOOL)
    await ledger.signal(run.run_id, "go")
    async with working(ledger, after):
        event = await given_back(ledger, run)
    async with working(ledger, before):
        run = await ended(ledger, run)

    assert event.error_code == HISTORY_MISMATCH
    assert reason in str(event.error_detail)
    assert "the handler changed while the run was open" in str(event.error_detail)
    assert (run.state, run.output) == (State.COMPLETED, "done with 7")


async def test_a_step_that_became_a_sleep_is_no_sleep_whatever_the_handler_catches(
    ledger: Ledger,
) -> None:
    @handler("order")
    async def order(ctx: Context) -> str:
        with suppress(BaseException):
            await ctx.sleep(0.01, name="rest")
        return "went on"

    run = await ledger.submit("order", max_attempts=1)
    [lease] = await ledger.claim("w:1")
    await ledger.append(lease, StepCompleted(name="rest", output="an hour"))
    await ledger.release(lease)
    async with working(ledger, order):
        back = await given_back(ledger, run)

    assert back.error_code == HISTORY_MISMATCH
    assert "step 'rest' where the handler has sleep 'rest'" in str(back.error_detail)
    assert (await ledger.get(run.run_id)).attempt_count == 0
