"""Every way in which an attempt can end, in one batch: no handler waits, so no task does."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from runfold.ledger import Ledger, State, Submit
from runfold.workers import Cancel, Context, Fail, Handler, Retry, Worker, handler
from tests.support.runs import types
from tests.support.waiting import BOUND, until
from tests.support.working import AT_ONCE, ended, working


@handler("completes")
async def completes(ctx: Context, number: int) -> int:
    return number


@handler("fails")
async def fails(ctx: Context) -> Fail:
    return Fail("NO_FUNDS", {"balance": 0})


@handler("raises", retry=AT_ONCE)
async def raises(ctx: Context) -> None:
    raise RuntimeError("as it was told")


@handler("retries", retry=AT_ONCE)
async def retries(ctx: Context) -> Retry | int:
    return Retry() if ctx.attempt == 1 else ctx.attempt


@handler("cancels")
async def cancels(ctx: Context) -> Cancel:
    return Cancel("no longer wanted")


@handler("spends")
async def spends(ctx: Context) -> Any:
    ctx.cost(usd=0.5, steps=2)
    return {"b": 1, "a": 2}


@handler("unwritable")
async def unwritable(ctx: Context) -> Any:
    return "x" * 100_000


@handler("parks")
async def parks(ctx: Context) -> Any:
    return await ctx.wait_for("go")


@handler("sleeps")
async def sleeps(ctx: Context) -> None:
    await ctx.sleep(3600)


@handler("stays")
async def stays(ctx: Context) -> None:
    await asyncio.sleep(3600)


ALL: tuple[Handler[..., Any], ...] = (
    completes, fails, raises, retries, cancels, spends, unwritable, parks, sleeps, stays,
)  # fmt: skip
ENDS = {
    "completes": (State.COMPLETED, 1),
    "fails": (State.FAILED, 1),
    "raises": (State.FAILED, 3),
    "retries": (State.COMPLETED, 2),
    "cancels": (State.CANCELLED, 1),
    "spends": (State.COMPLETED, 1),
    "unwritable": (State.FAILED, 1),
}


async def test_each_ending_of_one_batch_is_recorded_once_and_as_what_it_is(ledger: Ledger) -> None:
    given = {"completes": 7}
    kinds = [one.kind for one in ALL]
    runs = dict(
        zip(
            kinds,
            await ledger.submit_many([Submit(kind=kind, input=given.get(kind)) for kind in kinds]),
            strict=True,
        )
    )
    async with working(ledger, *ALL, concurrency=50, grace=0.1) as worker:
        after = {kind: await ended(ledger, runs[kind].run_id) for kind in ENDS}
        await until(lambda: len(worker._slots.held) == 1)  # noqa: SLF001  what it still holds
        parked = await ledger.get(runs["parks"].run_id)
        worker.stop()

    assert {kind: (run.state, run.attempt_count) for kind, run in after.items()} == ENDS
    assert (after["completes"].output, after["retries"].output) == (7, 2)
    assert (after["fails"].error_code, after["fails"].error_detail) == ("NO_FUNDS", {"balance": 0})
    assert (after["spends"].cost_usd, after["spends"].step_count) == (0.5, 2)
    assert after["spends"].output == {"a": 2, "b": 1}
    assert after["unwritable"].error_code == "E-RUN-006"
    assert (parked.state, parked.token) == (State.WAITING_TOOL, None)
    for kind in ("sleeps", "stays"):  # given back, and no attempt charged
        run = await ledger.get(runs[kind].run_id)
        assert (run.state, run.token) == (State.PENDING, None)
        assert (await types(ledger, run.run_id))[-1] == "lease.released"
    for kind in ENDS:
        ends = Counter(await types(ledger, runs[kind].run_id))
        assert ends["write.refused"] == 0
        assert ends["run.completed"] + ends["run.failed"] + ends["run.cancelled"] == 1


async def test_an_ending_under_a_lost_lease_is_refused_and_changes_nothing(ledger: Ledger) -> None:
    @handler("late")
    async def late(ctx: Context) -> str:
        await ledger.cancel(ctx.run_id, actor="ann")
        lease = worker._slots._attempts[next(iter(worker._slots.held))].lease  # noqa: SLF001
        await ledger.transition(lease, State.CANCELLED, reason="somebody was faster")
        return "done"

    run = await ledger.submit("late")
    async with working(ledger, late) as worker:
        assert (await ended(ledger, run)).state == State.CANCELLED
        await until(lambda: not worker._slots.held)  # noqa: SLF001

    history = await types(ledger, run.run_id)
    assert "run.completed" not in history
    assert history[-1] == "write.refused"


async def test_a_child_that_ends_in_a_batch_answers_its_parent(ledger: Ledger) -> None:
    @handler("asks")
    async def asks(ctx: Context) -> Any:
        return await ctx.children("completes", [1, 2, 3])

    run = await ledger.submit("asks")
    async with working(ledger, asks, completes, concurrency=10):
        assert (await ended(ledger, run)).output == [1, 2, 3]


async def test_an_abandoned_worker_sends_no_ending_that_waits_for_its_statement(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = await ledger.submit_many([Submit(kind="completes", input=n) for n in range(5)])
    sent = asyncio.Event()
    held_up = asyncio.Event()
    move = ledger.transitions.move

    async def late(moves: Any, **options: Any) -> Any:
        sent.set()
        await held_up.wait()
        return await move(moves, **options)

    monkeypatch.setattr(ledger.transitions, "move", late)
    worker = Worker(ledger, [completes], concurrency=1, reap=False, schedule=False, poll=0.05)
    task = asyncio.create_task(worker.run())
    await asyncio.wait_for(sent.wait(), BOUND)
    await until(lambda: len(worker._slots.held) > 1)  # noqa: SLF001  the second waits for the first
    worker.abandon()
    task.cancel()
    held_up.set()
    await asyncio.wait({task})

    states = Counter([(await ledger.get(run.run_id)).state for run in runs])
    assert states[State.COMPLETED] <= 1
    assert states[State.RUNNING] >= 1
