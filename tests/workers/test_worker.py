"""The runtime: slots, beats, cancellation and the end of a worker."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from runfold.ledger import Ledger, Run, State
from runfold.ledger.errors import ConfigurationError, DatabaseRefused, DatabaseUnavailable
from runfold.ledger.events import WriteRefused
from runfold.ledger.postgres.connections import connect
from runfold.ledger.postgres.urls import driver_url
from runfold.workers import BlockingContext, Context, Worker, handler
from runfold.workers.leases import heart as heartbeat
from runfold.workers.leases.heart import Heart
from tests.support.clock import set_clock
from tests.support.databases import PROJECT
from tests.support.runs import types
from tests.support.waiting import BOUND, until
from tests.support.working import FAST, LONG, ended, reached, working

seen: Counter[str] = Counter()
gate = threading.Event()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    seen.clear()
    gate.clear()


@pytest.fixture
async def fast(database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ledger]:
    """A ledger whose workers beat often, for leases that last."""
    for name, value in (FAST | LONG).items():
        monkeypatch.setenv(name, value)
    async with Ledger.open(database, PROJECT) as opened:
        yield opened


@handler("quick")
async def quick(ctx: Context, number: int) -> int:
    return number + 1


@handler("sleeps")
async def sleeps(ctx: Context) -> str:
    seen["began"] += 1
    try:
        await asyncio.sleep(3600)
    finally:
        seen["ended"] += 1
    return "slept"


@handler("waits")
async def waits(ctx: Context) -> str:
    seen["began"] += 1
    while not gate.is_set():  # noqa: ASYNC110  a gate that threads wait at too
        await asyncio.sleep(0.01)
    return "done"


@handler("looks")
def looks(ctx: BlockingContext) -> str:
    seen["began"] += 1
    while not ctx.cancelled and not gate.is_set():
        time.sleep(0.01)
    seen["saw"] += ctx.cancelled
    ctx.note("going on" if gate.is_set() else "stopping")
    return "done"


@handler("deaf")
def deaf(ctx: BlockingContext) -> str:
    seen["began"] += 1
    gate.wait(BOUND)
    return "done"


async def test_many_runs_are_done_each_once(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runfold.workers.slots.PATIENCE_SECONDS", BOUND)  # else some go back
    made = await ledger.submit_many([{"kind": "quick", "input": number} for number in range(300)])
    async with working(ledger, quick, concurrency=20):
        for number, one in enumerate(made):
            assert (await ended(ledger, one.run_id)).output == number + 1

    assert {len(await types(ledger, one.run_id)) for one in made} == {3}


async def test_no_more_runs_are_taken_than_there_are_slots_and_a_freed_slot_is_filled(
    ledger: Ledger,
) -> None:
    await ledger.submit_many([{"kind": "waits"}] * 5)
    async with working(ledger, waits, concurrency=2, poll=3600):
        await until(lambda: seen["began"] == 2)
        assert len(await ledger.runs(state=State.RUNNING)) == 2
        gate.set()
        await until(lambda: seen["began"] == 5)


async def test_a_worker_that_cannot_start_leaves_no_task(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(_: object) -> None:
        raise DatabaseUnavailable(None, "no connection for the heart")

    monkeypatch.setattr(Heart, "start", refused)
    before = asyncio.all_tasks()
    with pytest.raises(DatabaseUnavailable):
        await Worker(ledger, [waits]).run()
    assert asyncio.all_tasks() == before


async def test_a_handler_that_blocks_the_loop_keeps_its_lease(fast: Ledger, database: str) -> None:
    async def three_beats() -> None:
        beats = "SELECT count(*) >= 3 FROM ledger.event WHERE type = 'lease.heartbeat'"
        own = await asyncpg.connect(driver_url(database))
        await until(lambda: own.fetchval(beats))
        await own.close()

    @handler("blocks")
    async def blocks(ctx: Context) -> str:
        looking = threading.Thread(target=asyncio.run, args=(three_beats(),))
        looking.start()
        looking.join()  # the loop stands still meanwhile
        return "done"

    run = await fast.submit("blocks")
    async with working(fast, blocks, reap=True):
        after = await ended(fast, run)
    history = await fast.history(run.run_id)

    assert (after.state, after.attempt_count) == (State.COMPLETED, 1)
    beats = [event for event in history if event.type == "lease.heartbeat"]
    assert {event.late_ms for event in beats} == {None}  # type: ignore[attr-defined]  # beats have it


async def test_a_cancel_request_stops_an_async_handler_and_cancels_the_run(fast: Ledger) -> None:
    run = await fast.submit("sleeps")
    async with working(fast, sleeps):
        await until(lambda: seen["began"] == 1)
        await fast.cancel(run.run_id, actor="ann", reason="enough")
        after = await ended(fast, run)

    assert after.state == State.CANCELLED
    assert seen["ended"] == 1
    assert (await types(fast, run.run_id))[-1] == "run.cancelled"


async def test_a_cancel_request_reaches_a_thread_at_its_next_call(fast: Ledger) -> None:
    run = await fast.submit("looks")
    async with working(fast, looks):
        await until(lambda: seen["began"] == 1)
        await fast.cancel(run.run_id)
        assert (await ended(fast, run)).state == State.CANCELLED

    assert seen["saw"] == 1
    assert "note.added" not in await types(fast, run.run_id)


async def test_a_lost_lease_stops_the_work_and_the_refused_beat_is_recorded(fast: Ledger) -> None:
    run = await fast.submit("sleeps", deadline=3600)
    async with working(fast, sleeps):
        await until(lambda: seen["began"] == 1)
        await set_clock(fast.pool, timedelta(hours=2))

        async def overdue() -> bool:
            await fast.reap()
            return (await fast.get(run.run_id)).state == State.TIMEOUT

        await until(overdue)
        await until(lambda: seen["ended"] == 1)

    refused = [event for event in await fast.history(run.run_id) if isinstance(event, WriteRefused)]
    assert [(event.name, event.token) for event in refused] == [("heartbeat", 2)]


async def given_back(ledger: Ledger, run: Run) -> bool:
    """Whether the run's lease was released."""
    return "lease.released" in await types(ledger, run.run_id)


@pytest.mark.slow
async def test_no_beat_at_all_stops_the_work_before_the_lease_can_be_lost(
    database: str, connection: asyncpg.Connection[asyncpg.Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert heartbeat.SAFE_PART < 1
    monkeypatch.setattr(heartbeat, "SAFE_PART", 0.01)  # much less than a busy machine adds
    monkeypatch.setenv("RUNFOLD_HEARTBEAT_SECONDS", "0.2")
    async with Ledger.open(database, PROJECT) as ledger, working(ledger, sleeps):
        run = await ledger.submit("sleeps")
        await until(lambda: seen["began"] == 1)
        began = time.monotonic()
        async with connection.transaction():
            await connection.execute("LOCK TABLE ledger.run_state IN ACCESS EXCLUSIVE MODE")
            await until(lambda: seen["ended"] == 1)
            stopped = time.monotonic() - began
        assert stopped < ledger.settings.lease_ttl_seconds
        await until(lambda: given_back(ledger, run))
        again = await reached(ledger, run, State.RUNNING)

        assert again.attempt_count == 1
        assert "lease.released" in await types(ledger, run.run_id)


async def test_a_worker_that_is_told_to_stop_finishes_its_work_and_claims_no_more(
    ledger: Ledger,
) -> None:
    first = await ledger.submit("waits")
    async with working(ledger, waits, concurrency=1, grace=30) as worker:
        await until(lambda: seen["began"] == 1)
        second = await ledger.submit("waits")
        worker.stop()
        gate.set()

    assert (await ledger.get(first.run_id)).state == State.COMPLETED
    assert (await ledger.get(second.run_id)).version == 1


@pytest.mark.parametrize("kind", ["sleeps", "looks"])
async def test_what_is_not_done_within_the_grace_is_given_back_without_charging_an_attempt(
    ledger: Ledger, kind: str
) -> None:
    run = await ledger.submit(kind)
    async with working(ledger, sleeps, looks, grace=0.1) as worker:
        await until(lambda: seen["began"] == 1)
        worker.stop()
    after = await ledger.get(run.run_id)

    assert (after.state, after.attempt_count) == (State.PENDING, 0)
    assert await types(ledger, run.run_id) == ["run.submitted", "lease.acquired", "lease.released"]


async def test_a_second_stop_does_not_wait_for_the_grace(ledger: Ledger) -> None:
    run = await ledger.submit("sleeps")
    async with working(ledger, sleeps, grace=3600) as worker:
        await until(lambda: seen["began"] == 1)
        worker.stop()
        worker.stop()

    assert (await ledger.get(run.run_id)).state == State.PENDING


async def test_a_cancelled_worker_gives_everything_back(ledger: Ledger) -> None:
    run = await ledger.submit("sleeps")
    task = asyncio.create_task(Worker(ledger, sleeps, reap=False, grace=3600).run())
    await until(lambda: seen["began"] == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert (await ledger.get(run.run_id)).state == State.PENDING


async def test_the_run_of_a_thread_that_will_not_stop_is_given_back_over_its_head(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runfold.workers.slots.UNWIND_SECONDS", 0.2)
    run = await ledger.submit("deaf")
    async with working(ledger, deaf, grace=0.1) as worker:
        await until(lambda: seen["began"] == 1)
        worker.stop()
    after = await ledger.get(run.run_id)
    gate.set()

    assert (after.state, after.attempt_count) == (State.PENDING, 0)


async def test_the_last_beat_comes_after_the_last_work(fast: Ledger) -> None:
    """A run that goes on through a long grace keeps its lease."""
    run = await fast.submit("waits")

    async def beats() -> int:
        return (await types(fast, run.run_id)).count("lease.heartbeat")

    async with working(fast, waits, grace=BOUND) as worker:
        await until(lambda: seen["began"] == 1)
        worker.stop()
        heard = await beats()
        await until(lambda: _at_least(beats, heard + 3))
        gate.set()

    assert (await fast.get(run.run_id)).state == State.COMPLETED


async def test_an_outage_of_the_database_loses_no_result(
    fast: Ledger, connection: asyncpg.Connection[asyncpg.Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await fast.submit("waits")
    async with working(fast, waits):
        await until(lambda: seen["began"] == 1)
        async with connection.transaction():
            await connection.execute("LOCK TABLE ledger.run_state IN ACCESS EXCLUSIVE MODE")
            gate.set()

            async def cut_off() -> bool:
                await connection.execute("SELECT pg_stat_clear_snapshot()")
                return bool(await connection.fetchval(_CUT_OFF_BLOCKED))

            await until(cut_off)
        assert (await ended(fast, run)).output == "done"

    assert Counter(await types(fast, run.run_id))["run.completed"] == 1
    assert "write.refused" not in await types(fast, run.run_id)


_CUT_OFF_BLOCKED = """
SELECT bool_or(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid)) AND query ~ 'ledger.transition'
"""


async def test_a_ledger_without_a_url_cannot_have_a_heart(ledger: Ledger) -> None:
    with pytest.raises(ConfigurationError, match=r"Ledger\.open"):
        Worker(Ledger(ledger.pool, PROJECT, ledger.settings), quick)


async def test_heartbeat_and_note_are_for_people(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNFOLD_LEASE_TTL_SECONDS", "10800")
    monkeypatch.setenv("RUNFOLD_HEARTBEAT_SECONDS", "3600")  # this one's own beat comes first

    @handler("says")
    async def says(ctx: Context) -> None:
        await ctx.heartbeat("10 of 20")
        await asyncio.wait_for(beaten.wait(), BOUND)

    beaten = asyncio.Event()
    async with Ledger.open(database, PROJECT) as ledger:
        run = await ledger.submit("says")

        async def has_beaten() -> bool:
            return "lease.heartbeat" in await types(ledger, run.run_id)

        async with working(ledger, says):
            await until(has_beaten)
            beaten.set()
            await ended(ledger, run)
        history = await ledger.history(run.run_id)

    notes: list[Any] = [event for event in history if event.type == "note.added"]
    assert [note.text for note in notes] == ["10 of 20"]


async def test_a_heart_whose_log_cannot_be_written_goes_on_beating(
    fast: Ledger, connection: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    @handler("long")
    async def long(ctx: Context) -> None:
        await asyncio.wait_for(over.wait(), BOUND)

    def broken(_: Heart) -> Any:
        failed.set()
        raise BrokenPipeError

    async def fails_once(*given: Any, **facts: Any) -> Any:
        if not failed.is_set():
            raise OSError("no route")
        return await connect(*given, **facts)

    over, failed = asyncio.Event(), threading.Event()
    run = await fast.submit("long")

    async def beats() -> int:
        return (await types(fast, run.run_id)).count("lease.heartbeat")

    async with working(fast, long):
        await until(lambda: _at_least(beats, 1))
        monkeypatch.setattr(Heart, "_log", property(broken))
        monkeypatch.setattr(heartbeat, "connect", fails_once)
        await connection.execute(_CUT_HEART)
        await until(failed.is_set)
        heard = await beats()
        await until(lambda: _at_least(beats, heard + 2))
        over.set()
        assert (await ended(fast, run)).state == "completed"


async def test_a_heart_whose_loop_dies_begins_again_and_beats(
    fast: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    @handler("long")
    async def long(ctx: Context) -> None:
        await asyncio.wait_for(over.wait(), BOUND)

    async def dies_once(heart: Heart, running: asyncio.Future[None]) -> None:
        lives.append(heart)
        if len(lives) == 1:
            raise RecursionError
        await main(heart, running)

    over, lives, main = asyncio.Event(), list[Heart](), vars(Heart)["_main"]
    monkeypatch.setattr(Heart, "_main", dies_once)
    run = await fast.submit("long")

    async def beats() -> int:
        return (await types(fast, run.run_id)).count("lease.heartbeat")

    async with working(fast, long):
        await until(lambda: _at_least(beats, 2))
        over.set()
        assert (await ended(fast, run)).state == "completed"
    assert len(lives) == 2


async def test_a_heart_that_is_stopped_while_its_loop_is_dead_begins_no_more(
    fast: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dies(heart: Heart, running: asyncio.Future[None]) -> None:
        lives.append(asyncio.create_task(main(heart, running)))
        await until(ready.is_set)
        raise RecursionError

    lives, ready, main = list[Any](), asyncio.Event(), vars(Heart)["_main"]
    monkeypatch.setattr(Heart, "_main", dies)
    heart = Heart(fast, "w", 2.0, 0.5, tell=lambda *_: None, ready=ready.set)
    await heart.start()
    await until(lambda: ready.is_set() and not heart.can_beat)  # its loop has died

    await heart.stop()

    assert "runfold-heart" not in {thread.name for thread in threading.enumerate()}
    assert len(lives) == 1


async def test_a_heart_without_its_connection_lets_nothing_be_claimed(
    fast: Ledger, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def connect(*given: Any, **more: Any) -> Any:
        could_beat.append(heart.can_beat)
        if len(could_beat) == 2:
            raise ConnectionRefusedError
        return await connected(*given, **more)

    could_beat, ready, connected = list[bool](), asyncio.Event(), vars(heartbeat)["connect"]
    monkeypatch.setattr(heartbeat, "connect", connect)
    heart = Heart(fast, "w", 2.0, 0.5, tell=lambda *_: None, ready=ready.set)
    await heart.start()
    try:
        await until(ready.is_set)
        ready.clear()
        await connection.execute(_CUT_HEART)
        await until(ready.is_set)  # also the second time
    finally:
        await heart.stop()

    assert could_beat[2] is False


async def _at_least(count: Callable[[], Awaitable[int]], least: int) -> bool:
    return await count() >= least


_CUT_HEART = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'runfold heart'
  AND datname = current_database()
"""


async def test_a_limited_kind_is_looked_for_as_soon_as_a_place_is_free(ledger: Ledger) -> None:
    @handler("narrow")
    async def narrow(ctx: Context) -> None:
        pass

    await ledger.limit_kind("narrow", 1, actor="ann", ahead=True)
    runs = [await ledger.submit("narrow") for _ in range(10)]
    async with working(ledger, narrow, poll=3600, listen=False):
        assert (await ended(ledger, runs[-1])).state == "completed"


@handler("stops")
async def stops(ctx: Context) -> None:
    asyncio.get_running_loop().stop()
    await asyncio.sleep(3600)


@handler("cancels")
async def cancels(ctx: Context) -> None:
    for task in asyncio.all_tasks():
        task.cancel()
    await asyncio.sleep(3600)


@pytest.mark.parametrize("ends", [stops, cancels])
async def test_a_handler_that_ends_its_worker_leaves_its_run_to_a_reaper(
    ledger: Ledger, database: str, ends: Any
) -> None:
    run = await ledger.submit(ends.kind)

    async def program() -> None:
        async with Ledger.open(database, PROJECT) as own:
            await Worker(own, [ends], reap=False).run()

    with pytest.raises((RuntimeError, asyncio.CancelledError)):
        await asyncio.to_thread(asyncio.run, program())

    assert await types(ledger, run.run_id) == ["run.submitted", "lease.acquired"]


async def test_a_worker_that_its_program_cancels_gives_its_runs_back(
    ledger: Ledger, database: str
) -> None:
    run = await ledger.submit("sleeps")

    async def program() -> None:
        async with Ledger.open(database, PROJECT) as own:
            working = asyncio.create_task(Worker(own, [sleeps], reap=False).run())
            await until(lambda: seen["began"])
            working.cancel()
            await working

    with pytest.raises(asyncio.CancelledError):
        await asyncio.to_thread(asyncio.run, program())

    assert (await types(ledger, run.run_id))[-1] == "lease.released"


@pytest.mark.parametrize("call", ["claim", "heartbeat"])
async def test_a_limit_of_the_server_is_no_fault_of_a_run_that_sent_no_content(
    fast: Ledger, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    real, refusals = getattr(Ledger, call), [DatabaseRefused("54001", "stack depth limit exceeded")]

    async def refused_once(*given: Any, **named: Any) -> Any:
        if refusals:
            raise refusals.pop()
        return await real(*given, **named)

    monkeypatch.setattr(Ledger, call, refused_once)
    async with working(fast, quick):
        run = await ended(fast, await fast.submit("quick", 1, max_attempts=1))

    assert not refusals
    assert (run.state, run.output, run.attempt_count) == (State.COMPLETED, 2, 1)
    assert "run.retried" not in await types(fast, run.run_id)
