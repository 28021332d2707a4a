"""A run that was called off ends in its time, whatever its handler does."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from runfold import BlockingContext, Context, Ledger, State, handler
from runfold.ledger import names
from runfold.ledger.events import RunCancelled
from tests.support.processes import assert_accounted, said, worker
from tests.support.runs import newest, types
from tests.support.waiting import until
from tests.support.working import ended, reached, working

PATIENCE = {"RUNFOLD_CANCEL_SECONDS": "0.5"}


@pytest.mark.parametrize("kind", ["ignores", "stuck", "blocks", "freezes"])
async def test_a_handler_that_takes_no_notice_of_a_cancel_does_not_keep_its_run(
    ledger: Ledger, database: str, tmp_path: Path, kind: str
) -> None:
    run = await ledger.submit(kind, 60 if kind == "freezes" else None)
    log = tmp_path / "log"
    with worker(database, log=log, settings=PATIENCE), worker(database, name="reap"):
        await reached(ledger, run, State.RUNNING)
        await ledger.cancel(run.run_id, reason="not needed")
        run = await ended(ledger, run)

    assert run.state is State.CANCELLED
    assert_accounted(await ledger.history(run.run_id))
    if kind in {"ignores", "stuck"}:  # in the others the worker itself is held up
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

    @handler("stubborn")
    async def stubborn(ctx: Context) -> str:
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
        await reached(ledger, run, State.RUNNING)
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


@pytest.mark.usefixtures("patience")
async def test_a_handler_that_stops_in_its_time_ends_the_run_itself(ledger: Ledger) -> None:
    tidied = threading.Event()

    @handler("tidy")
    def tidy(ctx: BlockingContext) -> None:
        while not ctx.cancelled:
            pass
        tidied.set()
        ctx.note("tidied")

    run = await ledger.submit("tidy")
    async with working(ledger, tidy):
        await reached(ledger, run, State.RUNNING)
        await ledger.cancel(run.run_id)
        run = await ended(ledger, run)

    assert (run.state, tidied.is_set()) == (State.CANCELLED, True)
    cancelled = await newest(ledger, run.run_id, RunCancelled)
    assert cancelled.reason == "as requested"
