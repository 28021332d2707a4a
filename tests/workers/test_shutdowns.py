"""Runs whose worker is told to end under them, again and again."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import Any

import pytest

from runfold.ledger import Ledger, Run, State
from runfold.workers import Context, Handler, Worker, handler, judge
from tests.support.databases import PROJECT
from tests.support.runs import types
from tests.support.waiting import BOUND, until
from tests.support.working import AT_ONCE

WORKERS: list[Worker] = []


async def end_the_worker() -> None:
    """Do to this process's worker what a signal does."""
    WORKERS[-1].stop()
    await asyncio.sleep(3600)


@handler("signals", retry=AT_ONCE)
async def signals(ctx: Context) -> None:
    await end_the_worker()


@handler("gets on", retry=AT_ONCE)
async def gets_on(ctx: Context, steps: int) -> int:
    """Record one step in each attempt, and end the worker after it."""
    for number in range(steps):
        if await ctx.step(f"step-{number}", lambda: len(WORKERS)) == len(WORKERS):
            await end_the_worker()
    return steps


@handler("innocent", retry=AT_ONCE)
async def innocent(ctx: Context) -> str:
    await asyncio.sleep(0.3)
    return "done"


async def workers_until_over(ledger: Ledger, *runs: Run) -> list[Run]:
    """Start one worker after another, as a supervisor does, until the runs are over."""

    async def are_over() -> bool:
        return all([(await ledger.get(run.run_id)).is_terminal for run in runs])

    for _ in range(40):
        if await are_over():
            break
        handlers: list[Handler[..., Any]] = [signals, gets_on, innocent]
        worker = Worker(ledger, handlers, poll=0.05, grace=0, reap=False, listen=False)
        WORKERS.append(worker)
        task = asyncio.create_task(worker.run())

        async def ended_or_over(task: asyncio.Task[None] = task) -> bool:
            return task.done() or await are_over()

        await until(ended_or_over)
        worker.stop()
        await asyncio.wait_for(task, BOUND)
    return [await ledger.get(run.run_id) for run in runs]


async def test_a_run_that_signals_its_worker_every_time_fails_and_takes_no_other_with_it(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "GIVEN_BACK_FREELY", 3)
    guilty = await ledger.submit("signals", max_attempts=2)
    others = [await ledger.submit("innocent", max_attempts=1) for _ in range(2)]

    failed, *over = await workers_until_over(ledger, guilty, *others)

    assert (failed.state, failed.error_code, failed.attempt_count) == (
        State.FAILED,
        "E-RUN-004",
        2,
    )
    assert "told to end under it more than 3 times" in str(failed.error_detail)
    assert (await types(ledger, failed.run_id)).count("lease.released") >= 3
    assert [(run.state, run.attempt_count) for run in over] == [(State.COMPLETED, 1)] * 2


async def test_a_run_that_gets_on_between_the_ends_of_its_workers_is_never_charged(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "GIVEN_BACK_FREELY", 1)
    run = await ledger.submit("gets on", 5, max_attempts=1)
    [over] = await workers_until_over(ledger, run)
    assert (over.output, over.attempt_count) == (5, 1)
    assert (await types(ledger, over.run_id)).count("lease.released") == 5


@handler("cancels_others")
async def cancels_others(ctx: Context) -> None:
    """Cancel every task of the loop but its own: those of the worker."""
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await asyncio.sleep(3600)


async def test_a_run_that_cancels_its_worker_but_not_itself_is_left_to_be_charged(
    ledger: Ledger, database: str
) -> None:
    run = await ledger.submit("cancels_others")

    async def program() -> None:
        async with Ledger.open(database, PROJECT) as own:
            await Worker(own, cancels_others, reap=False, schedule=False, listen=False).run()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.to_thread(asyncio.run, program())

    assert (await ledger.get(run.run_id)).state is State.RUNNING
    assert "lease.released" not in await types(ledger, run.run_id)


def hearts() -> set[threading.Thread]:
    """Return the threads that beat for leases."""
    return {thread for thread in threading.enumerate() if thread.name == "runfold-heart"}


async def test_a_worker_that_is_cancelled_again_while_a_handler_cleans_up_beats_no_more(
    ledger: Ledger,
) -> None:
    begun, is_clean = asyncio.Event(), asyncio.Event()

    @handler("cleans up")
    async def cleans_up(ctx: Context) -> None:
        begun.set()
        while not is_clean.is_set():
            with suppress(asyncio.CancelledError):
                await is_clean.wait()

    run = await ledger.submit("cleans up")
    worker = Worker(ledger, cleans_up, listen=False)
    others = hearts()
    task = asyncio.create_task(worker.run())
    await asyncio.wait_for(begun.wait(), BOUND)

    task.cancel()
    await until(lambda: worker.is_stopping)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, BOUND)

    assert worker.left == [run.run_id]
    await until(lambda: not hearts() - others)
    is_clean.set()


async def test_a_worker_that_is_cancelled_as_it_begins_leaves_no_thread(ledger: Ledger) -> None:
    others = hearts()
    task = asyncio.create_task(Worker(ledger, innocent, listen=False).run())
    await asyncio.sleep(0)  # now it waits for its heart
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not hearts() - others)
