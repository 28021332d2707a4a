"""A suspect works alone, and afterwards nobody is kept from work."""

from __future__ import annotations

import asyncio

import pytest

from runfold.ledger import Ledger, State
from runfold.workers import Context, handler, judge
from runfold.workers.leases.suspects import Gate
from tests.support.waiting import BOUND
from tests.support.working import reached, working


@pytest.mark.parametrize("fails", [False, True])
async def test_a_suspect_begins_when_no_other_run_is_held_and_opens_the_gate_again(
    *, fails: bool
) -> None:
    held = 3
    gate = Gate(lambda: held)
    seen: list[tuple[int, bool]] = []

    async def work() -> None:
        seen.append((held, gate.is_closed))
        if fails:
            raise RuntimeError

    alone = asyncio.create_task(gate.alone(work))
    for held in (3, 2):  # noqa: B007  which the gate asks for
        gate.look()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (seen, gate.is_closed) == ([], True)
    held = 1
    gate.look()
    await asyncio.wait({alone})

    assert (seen, gate.is_closed) == ([(1, True)], False)
    assert isinstance(alone.exception(), RuntimeError) is fails


async def test_a_suspect_that_waits_does_not_begin_once_its_worker_is_to_end(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "GIVEN_BACK_FREELY", 1)
    begun, is_over, is_late = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @handler("long")
    async def long(ctx: Context) -> None:
        begun.set()
        await is_over.wait()

    @handler("given back")
    async def given_back(ctx: Context) -> None:
        is_late.set()

    suspect = await ledger.submit("given back")
    [lease] = await ledger.claim("vm:before")
    await ledger.release(lease, delay=0)
    other = await ledger.submit("long")
    async with working(ledger, long, given_back, kinds=["long"]) as worker:
        await asyncio.wait_for(begun.wait(), BOUND)
        worker.kinds.append("given back")
        await reached(ledger, suspect, State.RUNNING)
        worker.stop()
        is_over.set()

    assert not is_late.is_set()
    run = await ledger.get(suspect.run_id)
    assert (run.state, run.attempt_count) == (State.PENDING, 0)
    assert (await ledger.get(other.run_id)).state == State.COMPLETED
