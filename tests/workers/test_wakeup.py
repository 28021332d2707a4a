"""Wake-ups: a worker that would look in a minute looks at once; without them it still works."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from runfold.ledger import Ledger, State, Submit
from runfold.ledger.errors import ConfigurationError
from runfold.ledger.operations import wakeups
from runfold.workers import Context, handler, worker
from runfold.workers.duties.wakeup_listener import Wakeup
from tests.support.databases import PROJECT
from tests.support.logins import channel
from tests.support.waiting import BOUND, until
from tests.support.working import ended, reached, working

LATE = 3_600.0
"""A poll that comes after any of these tests has failed."""
LISTENERS = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
    "AND application_name = 'runfold-wakeup'"
)


@handler("greet")
async def greet(ctx: Context, name: str) -> str:
    return f"hello {name}"


@handler("ask")
async def ask(ctx: Context) -> bool:
    await ctx.approval("May it?")
    return True


async def listening(ledger: Ledger, *, besides: int = 0) -> int:
    """Return the server process that a worker listens through, once it waits for wake-ups.

    `besides`: the process that it listened through before, which may take its time to end.
    """
    pids: list[int] = []

    async def there() -> bool:
        waiting = f"{LISTENERS} AND state = 'idle' AND query LIKE 'LISTEN%' AND pid <> $1"
        pids[:] = [row["pid"] for row in await ledger.pool.fetch(waiting, besides)]
        return bool(pids)

    await until(there)
    return pids[0]


async def test_a_submitted_run_is_taken_up_at_once(ledger: Ledger) -> None:
    async with working(ledger, greet, poll=LATE):
        await listening(ledger)
        assert (await ended(ledger, await ledger.submit("greet", "ann"))).output == "hello ann"
        [one] = await ledger.submit_many([{"kind": "greet", "input": "bob"}])
        assert (await ended(ledger, one.run_id)).output == "hello bob"


async def test_an_answer_wakes_whoever_goes_on(ledger: Ledger) -> None:
    async with working(ledger, ask, poll=LATE):
        await listening(ledger)
        run = await ledger.submit("ask")
        await reached(ledger, run, State.WAITING_APPROVAL)
        await ledger.approve(await ledger.get(run.run_id), actor="ann")
        assert (await ended(ledger, run)).output is True


async def test_a_dead_connection_is_replaced_and_what_came_meanwhile_is_found(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    async with working(ledger, greet, poll=LATE):
        pid = await listening(ledger)
        await connection.execute("SELECT pg_terminate_backend($1)", pid)
        run = await ledger.submit("greet", "ann")
        await listening(ledger, besides=pid)
        assert (await ended(ledger, run)).state == State.COMPLETED
        assert (await ended(ledger, await ledger.submit("greet", "bob"))).state == State.COMPLETED


async def test_without_wake_ups_polling_finds_the_work_and_nobody_listens(ledger: Ledger) -> None:
    async with working(ledger, greet, listen=False):
        run = await ledger.submit("greet", "ann")
        assert (await ended(ledger, run)).state == State.COMPLETED
        assert await ledger.pool.fetchval(LISTENERS) is None


async def test_many_submits_send_few_wake_ups_and_none_within_a_callers_transaction(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    heard: list[object] = []
    await connection.add_listener(await channel(connection), lambda *given: heard.append(given[2]))

    await asyncio.gather(*(ledger.submit("greet", "ann") for _ in range(200)))

    async def came() -> bool:
        return bool(heard)

    await until(came)
    await ledger.project.waker.flush()
    await connection.execute("SELECT 1")  # what was sent before it has come
    assert set(heard) == {await channel(connection)}
    assert len(heard) < 100
    seen = len(heard)
    async with connection.transaction():
        await ledger.submit("greet", "ann", connection=connection)
    await ledger.project.waker.flush()
    await connection.execute("SELECT 1")
    assert len(heard) == seen


async def test_a_wake_up_waits_for_no_other_and_what_comes_within_2_ms_shares_the_next(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    did: list[object] = []
    later = asyncio.Event()

    async def notify(*_: object) -> None:
        did.append("notify")

    async def sleep(seconds: float) -> None:
        did.append(seconds)
        await later.wait()

    monkeypatch.setattr(wakeups, "fetch", notify)
    waker = wakeups.Waker(ledger.pool, PROJECT, sleep)

    waker.wake()
    await until(lambda: did == ["notify", 0.002])  # the first is sent before any pause
    for _ in range(100):
        waker.wake()
    later.set()
    await waker.flush()

    assert did == ["notify", 0.002, "notify", 0.002]
    waker.wake()
    await waker.flush()
    assert did[4:] == ["notify", 0.002]


async def test_after_a_quiet_moment_a_submit_wakes_as_it_commits(
    ledger: Ledger, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: asyncio.Queue[object] = asyncio.Queue()
    await ledger.submit("greet", "the first of its kind is sent alone")
    await ledger.project.waker.flush()
    await connection.add_listener(
        await channel(connection), lambda *given: heard.put_nowait(given[2])
    )
    asked: list[str] = []
    monkeypatch.setattr(ledger.project.waker, "wake", lambda: asked.append("wake"))

    for submit in (
        ledger.submit("greet", "ann"),
        ledger.submit_many([Submit(kind="greet"), Submit(kind="greet")]),
    ):
        monkeypatch.setattr(ledger.project.waker, "_woken_at", -1.0)
        await submit
        assert await asyncio.wait_for(heard.get(), BOUND) == await channel(connection)
        assert heard.empty()
        assert asked == []

    monkeypatch.setattr(wakeups, "QUIET_SECONDS", LATE)
    await ledger.submit("greet", "bob")  # one was sent lately
    await ledger.submit_many([Submit(kind="greet")])
    assert asked == ["wake", "wake"]


async def test_a_wake_up_is_heard_by_the_worker_without_a_pause(ledger: Ledger) -> None:
    looks: list[str] = []
    listener = Wakeup(ledger, lambda: looks.append("look"))

    listener._heard()  # noqa: SLF001  what the driver calls

    assert looks == ["look"]


async def test_the_claimer_does_not_linger_without_a_free_slot(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "LINGER_SECONDS", LATE)

    async with working(ledger, greet, concurrency=1, poll=LATE):
        await listening(ledger)
        runs = [await ledger.submit("greet", name) for name in ("ann", "bob", "cy")]
        outputs = [(await ended(ledger, run)).output for run in runs]

    assert outputs == ["hello ann", "hello bob", "hello cy"]


async def test_a_submit_that_is_the_last_act_still_wakes(
    database: str, connection: asyncpg.Connection
) -> None:
    heard: asyncio.Queue[object] = asyncio.Queue()
    await connection.add_listener(
        await channel(connection), lambda *given: heard.put_nowait(given[2])
    )

    async with Ledger.open(database, PROJECT) as ledger:
        await ledger.submit("greet", "ann")

    assert await asyncio.wait_for(heard.get(), BOUND) == await channel(connection)


async def test_a_ledger_without_a_url_cannot_be_woken(ledger: Ledger) -> None:
    with pytest.raises(ConfigurationError):
        Wakeup(Ledger(ledger.pool, ledger.project_id, ledger.settings), lambda: None)
