"""A run that was called off ends in its time, whatever its handler does."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from runfold import BlockingContext, Context, Ledger, Run, State, handler
from runfold.ledger import names
from runfold.ledger.events import RunCancelled
from runfold.workers.attempt import Attempt
from runfold.workers.errors import Stop
from runfold.workers.outcomes import Ending
from tests.support.processes import assert_accounted, said, worker
from tests.support.runs import newest, types
from tests.support.waiting import until
from tests.support.working import LONG, ended, working

PATIENCE = {"RUNFOLD_CANCEL_SECONDS": "0.5"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ignores", "stuck", "blocks", "freezes"])
async def test_a_handler_that_takes_no_notice_of_a_cancel_does_not_keep_its_run(
    ledger: Ledger, database: str, tmp_path: Path, kind: str
) -> None:
    run = await ledger.submit(kind, 60 if kind == "freezes" else None)
    log, called = tmp_path / "log", tmp_path / "called"
    is_heard = kind in {"ignores", "stuck"}  # in the others the worker itself is held up
    settings = PATIENCE | {"TEST_CALLED": str(called)} | (LONG if is_heard else {})
    with worker(database, log=log, settings=settings), worker(database, name="reap"):
        await until(called.exists)
        await ledger.cancel(run.run_id, reason="not needed")
        run = await ended(ledger, run)

    assert run.state is State.CANCELLED
    assert_accounted(await ledger.history(run.run_id))
    if is_heard:
        assert [line["run_id"] for line in said(log, names.WOULD_NOT_STOP)] == [str(run.run_id)]
        cancelled = await newest(ledger, run.run_id, RunCancelled)
        assert "its handler did not stop within 0.5 s" in str(cancelled.reason)


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have handlers stop soon, once their run is called off."""
    monkeypatch.setenv("RUNFOLD_CANCEL_SECONDS", "0.2")
    monkeypatch.setenv("RUNFOLD_HEARTBEAT_SECONDS", "0.1")


@pytest.mark.usefixtures("patience")
async def test_what_a_handler_does_after_its_run_was_ended_is_not_recorded(
    ledger: Ledger, ended_run: asyncio.Event
) -> None:
    results: list[str] = []
    called = asyncio.Event()

    @handler("stubborn")
    async def stubborn(ctx: Context) -> str:
        called.set()
        while not ended_run.is_set():
            try:
                await ended_run.wait()
            except asyncio.CancelledError:
                continue
        try:
            await ctx.step("late", lambda: results.append("done"))
        except BaseException as error:
            results.append(type(error).__name__)
            raise
        return "late"

    run = await ledger.submit("stubborn")
    async with working(ledger, stubborn, concurrency=1):
        await called.wait()
        await ledger.cancel(run.run_id)
        run = await ended(ledger, run)
        ended_run.set()
        await until(lambda: results)
        next_run = await ledger.submit("stubborn")  # the slot is free again
        assert (await ended(ledger, next_run)).output == "late"

    assert (run.state, results[0]) == (State.CANCELLED, "Stopped")
    happened = await types(ledger, run.run_id)
    assert [type_ for type_ in happened if type_ != "lease.heartbeat"] == [
        "run.submitted", "lease.acquired", "cancel.requested", "run.cancelled",
    ]  # fmt: skip


@pytest.fixture
def ended_run() -> asyncio.Event:
    """Set when the run has ended."""
    return asyncio.Event()


@pytest.mark.usefixtures("long_rest")
async def test_a_handler_that_stops_in_its_time_ends_the_run_itself(
    ledger: Ledger, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    called, tidied = threading.Event(), threading.Event()
    stopped, stop = list[Attempt](), Attempt.stop

    def noted(attempt: Attempt, why: Stop) -> None:
        stopped.append(attempt)
        stop(attempt, why)

    @handler("tidy")
    def tidy(ctx: BlockingContext) -> None:
        called.set()
        while not ctx.cancelled:
            pass
        tidied.set()
        ctx.note("tidied")

    monkeypatch.setattr(Attempt, "stop", noted)
    run = await ledger.submit("tidy")
    async with working(ledger, tidy):
        await until(called.is_set)
        await ledger.cancel(run.run_id)
        run = await ended(ledger, run)
        stopped[0]._overrule(3600)  # noqa: SLF001  as its timer does, whatever has ended by then

    assert names.WOULD_NOT_STOP not in capsys.readouterr().err
    assert (run.state, tidied.is_set()) == (State.CANCELLED, True)
    cancelled = await newest(ledger, run.run_id, RunCancelled)
    assert cancelled.reason == "as requested"


@pytest.mark.usefixtures("patience")
async def test_a_run_that_another_worker_has_is_not_ended_although_it_was_called_off(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, ended_run: asyncio.Event
) -> None:
    @handler("stubborn")
    async def stubborn(ctx: Context) -> None:
        [attempt] = attempts
        attempt.stop(Stop.CANCEL)
        attempt.stop(Stop.LOST)
        while not ended_run.is_set():
            with suppress(asyncio.CancelledError):
                await ended_run.wait()

    async def noted(attempt: Attempt) -> Ending:
        attempts.append(attempt)
        try:
            return await work(attempt)
        finally:
            returned.set()

    attempts, returned, work = list[Attempt](), asyncio.Event(), Attempt.work
    monkeypatch.setattr(Attempt, "work", noted)
    run = await ledger.submit("stubborn")
    async with working(ledger, stubborn):
        await until(lambda: attempts and attempts[0].was_called)
        await asyncio.sleep(ledger.settings.cancel_seconds)  # a later timer than the attempt's
        ended_run.set()
        await until(returned.is_set)

    happened = await types(ledger, run.run_id)
    assert [type_ for type_ in happened if type_ != "lease.heartbeat"] == [
        "run.submitted", "lease.acquired",
    ]  # fmt: skip


@pytest.fixture
def long_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a long sleep hold its run, and a handler end its run itself."""
    monkeypatch.setenv("RUNFOLD_HELD_SLEEP_SECONDS", "3600")
    monkeypatch.setenv("RUNFOLD_CANCEL_SECONDS", "3600")
    monkeypatch.setenv("RUNFOLD_HEARTBEAT_SECONDS", "0.1")


@pytest.mark.usefixtures("long_rest")
async def test_a_plain_function_that_sleeps_holding_its_run_hears_that_it_was_called_off(
    ledger: Ledger,
) -> None:
    @handler("sleeper")
    def sleeper(ctx: BlockingContext) -> None:
        ctx.sleep(1800)

    run = await ledger.submit("sleeper")
    async with working(ledger, sleeper):
        await until(lambda: _slept(ledger, run))
        await ledger.cancel(run.run_id)
        run = await ended(ledger, run)

    assert run.state is State.CANCELLED


async def _slept(ledger: Ledger, run: Run) -> bool:
    return "step.completed" in await types(ledger, run.run_id)
