"""A call that its handler gives up while the database is slow leaves a history to go on from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg
import pytest

from runfold import Backoff, Context, Ledger, State, handler
from runfold.workers.errors import StepError
from runfold.workers.journal import recorder
from tests.support.waiting import awaited, until
from tests.support.working import ended, reached, working

LIMIT = 0.2
"""Seconds that the handler has patience with a call that never ends by itself."""
CANCEL_WAITS = (
    "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() "
    "AND wait_event_type = 'Lock' AND query LIKE '%ledger.cancel(%'"
)
Lock = Callable[[], Awaitable[str]]
Call = Callable[[Context, Lock], Awaitable[object]]
Locking = Callable[..., Lock]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a worker wait for a write that is on its way for a moment only."""
    monkeypatch.setattr(recorder, "SETTLE_SECONDS", 0.1)


@asynccontextmanager
async def locking(database: str) -> AsyncIterator[Locking]:
    """Yield a function that keeps writes to a run waiting, the first time only.

    When a write waits, the handler's patience is over; then the write is let go. With `gives_up`
    it is over as soon as a write would wait.
    """
    other = await asyncpg.connect(database)
    unlocking: list[asyncio.Task[None]] = []

    def of(ctx: Context, patience: asyncio.Timeout, *, gives_up: bool = False) -> Lock:
        async def lock() -> str:
            if not unlocking:
                await other.execute("BEGIN")
                await other.execute(
                    "SELECT FROM ledger.run_state WHERE run_id = $1 FOR UPDATE".replace(
                        "$1", f"'{ctx.run_id}'"
                    )
                )
                unlocking.append(asyncio.create_task(unlock(patience)))
                if gives_up:
                    patience.reschedule(0)
            return "locked"

        return lock

    async def unlock(patience: asyncio.Timeout) -> None:
        await awaited(other)
        if not patience.expired():
            patience.reschedule(0)
        await asyncio.sleep(0.3)  # longer than the worker lets a write settle
        await other.execute("COMMIT")

    yield of
    await asyncio.gather(*unlocking)
    await other.close()


async def step(ctx: Context, lock: Lock) -> None:
    await ctx.step("pay", lock)


async def failed_step(ctx: Context, lock: Lock) -> None:
    async def pay() -> None:
        await lock()
        raise ConnectionError("the bank is away")

    with pytest.raises(StepError):
        await ctx.step("pay", pay)


async def given_up_step(ctx: Context, lock: Lock) -> None:
    async def pay() -> None:
        await lock()
        await asyncio.sleep(60)

    await ctx.step("pay", pay)


async def asked_tool(ctx: Context, lock: Lock) -> None:
    await lock()
    await ctx.tool("pay", lambda: "paid")


async def answered_tool(ctx: Context, lock: Lock) -> None:
    await ctx.tool("pay", lock)


async def tool_in_a_queue(ctx: Context, lock: Lock) -> None:
    before = asyncio.create_task(ctx.tool("before", lock))
    await asyncio.sleep(0)
    try:
        await ctx.tool("pay", lambda: "paid")
    finally:
        await asyncio.shield(before)


async def asking(ctx: Context, _: Lock) -> None:
    await ctx.tool("pay", lambda: asyncio.sleep(60), park=True)


async def note(ctx: Context, lock: Lock) -> None:
    await lock()
    await ctx.note("paying")


async def sleep(ctx: Context, lock: Lock) -> None:
    await lock()
    await ctx.sleep(0.01)


async def given_up_sleep(ctx: Context, _: Lock) -> None:
    await ctx.sleep(5)


async def children(ctx: Context, lock: Lock) -> None:
    await lock()
    await ctx.children("none", [])


async def approval(ctx: Context, lock: Lock) -> None:
    await lock()
    await ctx.approval("pay?")


async def signal(ctx: Context, lock: Lock) -> None:
    await lock()
    await ctx.wait_for("pay")


ENDLESS = (asking, given_up_sleep)
GIVES_UP = (given_up_step, asked_tool, tool_in_a_queue, sleep, *ENDLESS)
"""The calls that the handler can give up; any other is done by then, all but its record."""
CALLS = (
    step, failed_step, answered_tool, note, children, approval, signal, *GIVES_UP
)  # fmt: skip


@pytest.mark.slow
async def test_a_call_given_up_while_its_write_is_on_the_way_is_replayed_alike(
    ledger: Ledger, database: str, subtests: pytest.Subtests
) -> None:
    for call in CALLS:
        with subtests.test(call.__name__):
            async with locking(database) as lock:
                await _replayed_alike(ledger, lock, call)


async def _replayed_alike(ledger: Ledger, lock: Locking, call: Call) -> None:
    kind = call.__name__
    paths: list[list[str]] = []

    @handler(kind, retry=Backoff(first=0))
    async def order(ctx: Context) -> str:
        paths.append(path := [])
        try:
            is_timed = call in ENDLESS or (call in GIVES_UP and ctx.attempt > 1)
            async with asyncio.timeout(LIMIT if is_timed else None) as patience:
                await call(ctx, lock(ctx, patience, gives_up=call is given_up_step))
        except TimeoutError:
            path.append("gave up")
            await ctx.step("otherwise", lambda: None)
        path.append(await ctx.step("next", lambda: "next"))
        if ctx.attempt == 1:
            raise ConnectionError("the first attempt fails")
        return "done"

    run = await ledger.submit(kind)
    async with working(ledger, order):
        if call is approval:
            await ledger.approve(await reached(ledger, run, State.WAITING_APPROVAL), actor="ann")
        elif call is signal:
            await reached(ledger, run, State.WAITING_TOOL)
            await ledger.signal(run.run_id, "pay")
        run = await ended(ledger, run)

    assert (run.state, run.output, run.attempt_count) == (State.COMPLETED, "done", 2)
    expected = ["gave up", "next"] if call in GIVES_UP else ["next"]
    assert [path for path in paths if path] == [expected] * 2


async def test_a_cancellation_that_met_a_write_on_its_way_comes_when_it_has_landed(
    ledger: Ledger, database: str
) -> None:
    @handler("order")
    async def order(ctx: Context) -> str:
        try:
            async with asyncio.timeout(None) as patience:
                await ctx.step("pay", lock(ctx, patience))
                await asyncio.sleep(60)
        except TimeoutError:
            return await ctx.step("late", lambda: "too late")
        return "in time"

    run = await ledger.submit("order")
    async with locking(database) as lock, working(ledger, order):
        assert (await ended(ledger, run)).output == "too late"


async def test_a_run_is_called_off_while_a_write_is_on_its_way(
    ledger: Ledger, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    @handler("order")
    async def order(ctx: Context) -> None:
        lock = f"SELECT FROM ledger.run_state WHERE run_id = '{ctx.run_id}' FOR UPDATE"
        await ctx.step("pay", lambda: connection.execute(f"BEGIN; {lock}"))
        await asyncio.sleep(3600)

    run = await ledger.submit("order")
    async with working(ledger, order) as worker:
        await until(connection.is_in_transaction)
        await awaited(connection)
        cancelling = asyncio.create_task(ledger.cancel(run.run_id))
        await until(lambda: ledger.pool.fetchval(CANCEL_WAITS))
        await connection.execute("COMMIT")
        await cancelling
        worker._slots.heart.beat_soon()  # noqa: SLF001  so that it hears of it
        assert (await ended(ledger, run)).state is State.CANCELLED
