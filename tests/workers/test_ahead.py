"""Runs that are leased ahead of need: each begins soon, or is given back as if never leased."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from runfold.ledger import Ledger, State, Submit
from runfold.ledger.events import LeaseReleased
from runfold.workers import Context, Handler, Worker, handler, slots
from runfold.workers.judge import GIVEN_BACK_FREELY
from runfold.workers.leases import ahead, heart
from tests.support.databases import PROJECT
from tests.support.runs import types
from tests.support.waiting import until
from tests.support.working import FAST, ended, reached, working
from tests.workers.test_endings import ALL, ENDS

AHEAD = 40


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Have every worker claim ahead, however slow its attempts are, and wait for slots."""
    monkeypatch.setattr(ahead.Pace, "ahead", lambda _: AHEAD)
    monkeypatch.setattr(slots, "PATIENCE_SECONDS", 60)
    return monkeypatch


class Slow:
    """A handler that keeps the slots until it is let go."""

    def __init__(self, kind: str = "slow") -> None:
        self.go = asyncio.Event()

        @handler(kind)
        async def slow(ctx: Context) -> None:
            await self.go.wait()

        self.handler: Handler[..., Any] = slow


@handler("lost")
async def lost(ctx: Context) -> None:
    """Return under a lease that somebody else has ended."""


@handler("called off")
async def called_off(ctx: Context) -> None:
    """Return although a cancellation was requested, unless that was heard of before."""


@handler("quick")
async def quick(ctx: Context) -> None:
    await asyncio.sleep(0)


async def submitted(ledger: Ledger, kinds: Sequence[str]) -> list[UUID]:
    """Submit a run of each kind, in that order."""
    given = {"completes": 7}
    runs = [Submit(kind=kind, input=given.get(kind)) for kind in kinds]
    return [run.run_id for run in await ledger.submit_many(runs)]


async def held_ahead(worker: Worker, count: int) -> None:
    """Wait until a worker holds so many runs; all but those in its slots wait."""
    await until(lambda: len(worker._slots.held) == count)  # noqa: SLF001  what it holds


async def test_each_ending_of_runs_that_were_leased_ahead_is_recorded_as_what_it_is(
    ledger: Ledger, eager: pytest.MonkeyPatch
) -> None:
    called: list[UUID] = []

    @handler("never")
    async def never(ctx: Context) -> None:
        called.append(ctx.run_id)

    slow, last = Slow(), Slow("last")
    ways = [one for one in ALL if one.kind != "stays"]
    held_up = [slow.handler, *ways, lost, called_off]
    kinds = [one.kind for one in held_up]
    runs = dict(zip(kinds, await submitted(ledger, kinds), strict=True))
    async with working(ledger, *held_up, last.handler, never, concurrency=1) as worker:
        await held_ahead(worker, len(kinds))
        await taken_from(ledger, worker, runs["lost"])
        await ledger.cancel(runs["called off"], actor="ann")
        worker._slots.heart.beat_soon()  # noqa: SLF001
        await until(lambda: {runs["lost"], runs["called off"]} <= stopped(worker))
        slow.go.set()
        after = {kind: await ended(ledger, runs[kind]) for kind in ENDS}
        parked = await reached(ledger, await ledger.get(runs["parks"]), State.WAITING_TOOL)
        off = await ended(ledger, runs["called off"])
        _, runs["never"] = await submitted(ledger, ["last", "never"])
        await held_ahead(worker, 2)  # the first has the slot, and the second waits for it
        worker.stop()
        last.go.set()

    assert {kind: (run.state, run.attempt_count) for kind, run in after.items()} == ENDS
    assert (parked.state, parked.token, off.state) == ("waiting_tool", None, "cancelled")
    history = await types(ledger, runs["lost"])  # the heart and the ending may both be refused
    assert (history.count("run.cancelled"), history[-1]) == (1, "write.refused")
    assert "run.completed" not in history
    assert called == []
    for kind in ("sleeps", "never"):
        run = await ledger.get(runs[kind])
        assert (run.state, run.token) == (State.PENDING, None)
        assert (await types(ledger, run.run_id))[-1] == "lease.released"
    for kind in ENDS:
        assert "write.refused" not in await types(ledger, runs[kind])


def stopped(worker: Worker) -> set[UUID]:
    """Return the runs of which a worker's heart has heard that they have to end."""
    attempts = worker._slots._attempts.values()  # noqa: SLF001
    return {one.lease.run_id for one in attempts if one._recorder.stopped is not None}  # noqa: SLF001


async def taken_from(ledger: Ledger, worker: Worker, run_id: UUID) -> None:
    """End a run under a worker's lease, of which the worker hears nothing."""
    await ledger.cancel(run_id, actor="ann")
    leases = [one.lease for one in worker._slots._attempts.values()]  # noqa: SLF001
    [lease] = [lease for lease in leases if lease.run_id == run_id]
    await ledger.transition(lease, State.CANCELLED, reason="somebody was faster")


async def test_runs_ahead_that_find_no_slot_are_given_back_and_done_elsewhere(
    ledger: Ledger, eager: pytest.MonkeyPatch
) -> None:
    eager.setattr(slots, "PATIENCE_SECONDS", 0.05)
    slow = Slow()
    first, *rest = await submitted(ledger, ["slow", *["quick"] * 3])
    async with working(ledger, slow.handler, quick, concurrency=1) as busy:
        await held_ahead(busy, 4)
        eager.setattr(ahead.Pace, "ahead", lambda _: 0)
        await held_ahead(busy, 1)
        async with working(ledger, quick, concurrency=3):
            done = [await ended(ledger, run) for run in rest]
        slow.go.set()
        await ended(ledger, first)

    for run in done:
        _, leased, released, *_ = await ledger.history(run.run_id)
        assert (leased.type, released.type) == ("lease.acquired", "lease.released")
        assert isinstance(released, LeaseReleased)
        assert released.error_code == "E-RUN-008"
        assert (run.attempt_count, run.error_code, run.state) == (1, None, State.COMPLETED)


async def test_runs_ahead_do_not_keep_a_suspect_waiting_for_its_turn_alone(
    ledger: Ledger, eager: pytest.MonkeyPatch
) -> None:
    suspect = (await ledger.submit("quick")).run_id
    for _ in range(GIVEN_BACK_FREELY):
        [lease] = await ledger.claim("vm:before")
        await ledger.release(lease)
    rest = await submitted(ledger, ["quick"] * 5)
    async with working(ledger, quick, concurrency=1):
        for run in [suspect, *rest]:
            assert (await ended(ledger, run)).attempt_count == 1


async def test_what_is_given_back_unbegun_counts_for_no_pace(
    ledger: Ledger, eager: pytest.MonkeyPatch
) -> None:
    eager.setattr(slots, "PATIENCE_SECONDS", 0.05)
    counted: list[None] = []
    eager.setattr(ahead.Pace, "ended", lambda _: counted.append(None))
    slow = Slow()
    first, *_ = await submitted(ledger, ["slow", *["quick"] * 3])
    async with working(ledger, slow.handler, quick, concurrency=1) as worker:
        await held_ahead(worker, 4)
        eager.setattr(ahead.Pace, "ahead", lambda _: 0)
        await held_ahead(worker, 1)
        assert counted == []
        worker.stop()
        slow.go.set()
    assert len(counted) == 1
    assert (await ledger.get(first)).state == State.COMPLETED


async def test_a_limit_of_a_kind_holds_for_runs_that_are_leased_ahead(
    ledger: Ledger, eager: pytest.MonkeyPatch
) -> None:
    await ledger.limit_kind("slow", 2, actor="ann", ahead=True)
    slow = Slow()
    runs = await submitted(ledger, ["slow"] * 6)
    async with working(ledger, slow.handler, concurrency=1) as worker:
        await held_ahead(worker, 2)
        worker.look()
        await asyncio.sleep(0.1)
        [kind] = await ledger.kinds()
        assert (kind.held, len(worker._slots.held)) == (2, 2)  # noqa: SLF001
        slow.go.set()
        for run in runs:
            await ended(ledger, run)


async def test_no_attempt_is_charged_to_runs_ahead_of_a_worker_that_dies(
    database: str, ledger: Ledger, eager: pytest.MonkeyPatch
) -> None:
    for name, value in FAST.items():
        eager.setenv(name, value)
    eager.setattr(heart.Heart, "_should_beat", lambda *_: False)  # it dies before the first beat
    slow = Slow()
    first, *rest = await submitted(ledger, ["slow"] * 4)
    async with Ledger.open(database, PROJECT) as dying:
        worker = Worker(dying, [slow.handler], concurrency=1, reap=False, schedule=False)
        task = asyncio.create_task(worker.run())
        await held_ahead(worker, 4)
        worker.abandon()
        task.cancel()
        await asyncio.wait({task})

    async def reaped() -> bool:
        await ledger.reap()
        return all([(await ledger.get(run)).token is None for run in [first, *rest]])

    await until(reaped)
    assert [(await ledger.get(run)).attempt_count for run in rest] == [0, 0, 0]


async def test_a_run_ahead_begins_in_no_context_of_the_run_that_had_its_slot(
    ledger: Ledger, eager: pytest.MonkeyPatch
) -> None:
    tenant: ContextVar[str] = ContextVar("tenant", default="nobody")

    @handler("tells")
    async def tells(ctx: Context) -> str:
        before = tenant.get()
        tenant.set(ctx.run_id.hex)
        await asyncio.sleep(0)
        return before

    runs = await submitted(ledger, ["tells"] * 5)
    async with working(ledger, tells, concurrency=1):
        assert [(await ended(ledger, run)).output for run in runs] == ["nobody"] * 5


def test_the_pace_allows_what_will_begin_soon_and_nothing_after_a_stumble(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1_000.0
    monkeypatch.setattr("runfold.workers.leases.ahead.time.monotonic", lambda: now)

    def pace_of(slots: int, ended: int, seconds: float) -> ahead.Pace:
        nonlocal now
        pace = ahead.Pace(slots)
        for _ in range(ended):
            pace.ended()
        now += seconds
        return pace

    assert ahead.Pace(10).ahead() == 0
    assert pace_of(10, ended=20, seconds=1).ahead() == 0  # half a second each
    assert pace_of(10, ended=1_000, seconds=1).ahead() == 29
    assert pace_of(1, ended=90_000, seconds=1).ahead() == ahead.EACH
    assert pace_of(500, ended=90_000, seconds=1).ahead() == ahead.MOST
    pace = pace_of(10, ended=1_000, seconds=1)
    now += 1  # nothing ended in it
    assert pace.ahead() <= 15
    pace.forget()
    assert pace.ahead() == 0


def test_a_worker_claims_half_of_what_will_begin_soon_and_nothing_that_it_cannot_hold() -> None:
    def room(**facts: Any) -> int:
        """Return the room of a worker with ten free slots, for which 40 runs ahead may wait."""
        heart = SimpleNamespace(can_beat=facts.pop("can_beat", True))
        gate = SimpleNamespace(is_closed=facts.pop("is_closed", False))
        pace = facts.pop("pace", AHEAD)
        present = {"free": 10, "may_claim_more": True, "_ahead": [], "_count": 10, **facts}
        worker = SimpleNamespace(
            heart=heart, _gate=gate, _pace=SimpleNamespace(ahead=lambda: pace), **present
        )
        found: int = slots.Slots.room.fget(worker)  # type: ignore[attr-defined]
        return found

    assert room() == room(free=0) == 25
    assert room(may_claim_more=False) == room(pace=0) == 10
    assert room(free=3, pace=4) == 7
    assert room(free=0, _ahead=[None] * 10) == 25
    assert room(free=0, _ahead=[None] * 25) == room(free=2, pace=0, _ahead=[None] * 5) == 0
    assert room(can_beat=False) == room(is_closed=True) == 0
