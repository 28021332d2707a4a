"""A worker beside a block of the program that it is in."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from runfold.ledger import Ledger, Run, State
from runfold.workers import Context, Worker, handler
from tests.support.handlers import double
from tests.support.waiting import BOUND

BEGUN, END = asyncio.Event(), asyncio.Event()


@handler("lasting")
async def lasting(ctx: Context) -> None:
    BEGUN.set()
    await END.wait()


@pytest.fixture
async def held(ledger: Ledger) -> Run:
    """A run that lasts until END is set."""
    BEGUN.clear()
    END.clear()
    return await ledger.submit("lasting")


async def assert_given_back(ledger: Ledger, run: Run) -> None:
    left = await ledger.get(run.run_id)
    assert (left.state, left.attempt_count) == (State.PENDING, 0)


async def test_it_works_while_the_block_lasts(ledger: Ledger) -> None:
    run = await ledger.submit("double", 21)
    async with Worker(ledger, double) as worker:
        assert (await ledger.wait(run.run_id)).output == 42
    assert worker.is_stopping
    later = await ledger.submit("double", 1)
    assert (await ledger.get(later.run_id)).state == State.PENDING


async def test_the_runs_of_a_block_that_raises_are_given_back_at_once(
    ledger: Ledger, held: Run
) -> None:
    error = KeyError("of the block")

    async def block() -> None:
        async with asyncio.timeout(BOUND), Worker(ledger, lasting, grace=3600):
            await BEGUN.wait()
            raise error

    with pytest.raises(KeyError) as raised:
        await block()
    assert raised.value is error
    await assert_given_back(ledger, held)


async def test_the_runs_of_a_block_that_is_cancelled_are_given_back_at_once(
    ledger: Ledger, held: Run
) -> None:
    async def block() -> None:
        async with Worker(ledger, lasting, grace=3600):
            await asyncio.Event().wait()

    task = asyncio.create_task(block())
    await BEGUN.wait()
    task.cancel()
    await asyncio.wait([task], timeout=BOUND)
    assert task.cancelled()
    await assert_given_back(ledger, held)


async def test_a_block_that_has_stopped_it_waits_for_its_grace(ledger: Ledger, held: Run) -> None:
    async with Worker(ledger, lasting, grace=3600) as worker:
        await BEGUN.wait()
        worker.stop()
        asyncio.get_running_loop().call_soon(END.set)
    assert (await ledger.get(held.run_id)).state == State.COMPLETED


async def test_a_defect_that_ends_the_worker_ends_the_block(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    defect = RuntimeError("a defect")

    async def claims(*_: Any, **__: Any) -> list[Any]:
        raise defect

    async def block() -> None:
        async with asyncio.timeout(BOUND), Worker(ledger, double):
            await asyncio.Event().wait()

    monkeypatch.setattr(ledger, "claim", claims)
    with pytest.raises(RuntimeError) as raised:
        await block()
    assert raised.value is defect
