"""The reaper brings back dead runs, and never those that an outage kept from beating."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import pytest

from runfold.ledger import Lease, Ledger, State, names
from runfold.ledger.errors import InvalidValue
from runfold.ledger.events import NoteAdded
from runfold.workers.duties.reaper import PARTITIONS_SECONDS, SPREAD_SECONDS, Reaper
from tests.support import waiting
from tests.support.clock import set_clock
from tests.support.databases import PROJECT
from tests.support.server import Server

TTL = 60.0
Make = Callable[..., Reaper]


class Clock:
    """A clock that moves by command, by sleeping on it, and by `jumps` when it is read next."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.jumps: list[float] = []

    def __call__(self) -> float:
        self.now += self.jumps.pop(0) if self.jumps else 0
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(ledger: Ledger, clock: Clock) -> Make:
    """Make a reaper on the test's clock, with a lease of a minute unless told otherwise."""

    def made(on: Ledger = ledger, *, limit: int = 1_000, grace: float = TTL) -> Reaper:
        return Reaper(on, every=30, grace=grace, limit=limit, clock=clock, sleep=clock.sleep)

    return made


async def abandoned(ledger: Ledger, count: int = 1) -> list[Lease]:
    """Lease runs to a worker that is never heard of again, and let the leases pass their end."""
    await ledger.submit_many([{"kind": "parse"} for _ in range(count)])
    leases = await ledger.claim("w:dead", limit=count, ttl=0.001)
    await waiting.lapsed(ledger, *leases)
    return leases


async def compensations(ledger: Ledger) -> Counter[tuple[UUID, int | None]]:
    """Count every lease.expired of the project, by its run and the event that it compensates."""
    rows = await ledger.pool.fetch(
        "SELECT run_id, compensates FROM ledger.event WHERE type = 'lease.expired'"
    )
    return Counter((row["run_id"], row["compensates"]) for row in rows)


@pytest.fixture
def cut(server: Server, database: str) -> Callable[[], AbstractAsyncContextManager[None]]:
    """Cut every connection to the database and let nobody in, for as long as the block lasts."""
    name = urlsplit(database).path.removeprefix("/")

    @asynccontextmanager
    async def outage() -> AsyncIterator[None]:
        admin = await asyncpg.connect(server.url)
        try:
            await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name
            )
            yield
        finally:
            await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
            await admin.close()

    return outage


async def test_the_first_sweep_waits_one_lease_from_the_first_answer(
    ledger: Ledger, make: Make, clock: Clock
) -> None:
    (lease,) = await abandoned(ledger)
    reaper = make()

    assert await reaper.tick() == []
    clock.now += TTL - 0.001
    assert await reaper.tick() == []
    assert (await ledger.get(lease.run_id)).state == State.RUNNING

    clock.now += 0.001
    (run,) = await reaper.tick()
    assert (run.run_id, run.state) == (lease.run_id, State.PENDING)
    assert await compensations(ledger) == {(lease.run_id, lease.token): 1}


async def test_a_clock_that_is_set_forward_costs_nobody_a_lease(
    ledger: Ledger, make: Make, clock: Clock, connection: asyncpg.Connection
) -> None:
    await ledger.submit("parse")
    (lease,) = await ledger.claim("w:1")
    reaper = make()
    await reaper.tick()
    clock.now += TTL
    assert await reaper.tick() == []

    await set_clock(connection, timedelta(hours=1))
    clock.now += TTL / 2
    assert await reaper.tick() == []
    clock.now += TTL - 0.001
    assert await reaper.tick() == []
    (lease,) = await ledger.heartbeat([lease])  # late, and in time
    clock.now += 0.001
    assert await reaper.tick() == []
    assert (await ledger.get(lease.run_id)).state == State.RUNNING


async def test_a_clock_that_is_set_back_costs_nobody_the_lease_that_it_had_just_got(
    ledger: Ledger, make: Make, clock: Clock, connection: asyncpg.Connection
) -> None:
    await ledger.submit("parse")  # that it is so late is on record
    reaper = make()
    await reaper.tick()

    await set_clock(connection, timedelta(hours=-1))
    await ledger.submit("late")
    (lease,) = await ledger.claim("w:1", kinds=["late"])  # it ends long before what is recorded
    await ledger.append(lease, NoteAdded(text="begun"))
    clock.now += TTL
    assert await reaper.tick() == []
    clock.now += TTL - 0.001
    assert await reaper.tick() == []
    (lease,) = await ledger.heartbeat([lease])
    clock.now += 0.001
    assert await reaper.tick() == []
    assert (await ledger.get(lease.run_id)).state == State.RUNNING


async def test_after_an_outage_workers_may_beat_for_one_lease_before_anything_is_reaped(
    ledger: Ledger,
    make: Make,
    clock: Clock,
    cut: Callable[[], AbstractAsyncContextManager[None]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    reaper = make()
    await reaper.tick()
    clock.now += TTL
    await reaper.tick()
    alive, *dead = await abandoned(ledger, 3)

    async with cut():
        for _ in range(20):
            clock.now += max(reaper.pause(), 1)
            assert await reaper.tick() == []
        clock.now += 10 * TTL
    assert capsys.readouterr().err.count(names.REAPER_INTERRUPTED) == 1

    assert await reaper.tick() == []
    assert names.REAPER_RESUMES in capsys.readouterr().err
    (beat,) = await ledger.heartbeat([replace(alive, ttl=timedelta(seconds=TTL))])
    assert beat.late_ms is not None
    clock.now += TTL - 0.001
    assert await reaper.tick() == []

    clock.now += 0.001
    assert {run.run_id for run in await reaper.tick()} == {lease.run_id for lease in dead}
    assert (await ledger.get(alive.run_id)).state == State.RUNNING


async def test_a_sweep_that_is_cut_off_reaps_nothing_and_starts_the_wait_anew(
    ledger: Ledger, make: Make, clock: Clock, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    (lease,) = await abandoned(ledger)
    reaper = make()
    await reaper.tick()
    clock.now += TTL

    async with connection.transaction():
        await connection.execute("LOCK TABLE ledger.run_state IN ACCESS EXCLUSIVE MODE")
        sweep = asyncio.create_task(reaper.tick())
        await waiting.until(lambda: connection.fetchval(_TERMINATE_BLOCKED))
        assert await sweep == []

    assert await reaper.tick() == []
    assert (await ledger.get(lease.run_id)).state == State.RUNNING
    clock.now += TTL
    assert [run.run_id for run in await reaper.tick()] == [lease.run_id]


_TERMINATE_BLOCKED = """
SELECT count(pg_terminate_backend(pid)) > 0 FROM pg_stat_activity
WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid))
"""


async def test_a_database_that_stood_still_was_away(
    ledger: Ledger, make: Make, clock: Clock
) -> None:
    await abandoned(ledger)
    reaper = make()
    await reaper.tick()
    clock.now += TTL

    clock.jumps = [0, TTL]
    assert await reaper.tick() == []
    assert await reaper.tick() == []
    clock.now += TTL
    assert len(await reaper.tick()) == 1


async def test_a_database_that_takes_no_writes_is_away(
    ledger: Ledger, make: Make, clock: Clock
) -> None:
    (lease,) = await abandoned(ledger)
    reaper = make()
    await reaper.tick()

    # Of the one connection that is used here.
    await ledger.pool.execute("SET default_transaction_read_only = on")
    for _ in range(4):
        clock.now += TTL
        assert await reaper.tick() == []
    await ledger.pool.execute("SET default_transaction_read_only = off")

    clock.now += TTL
    assert await reaper.tick() == []
    clock.now += TTL
    assert [run.run_id for run in await reaper.tick()] == [lease.run_id]


async def test_it_feels_the_pulse_four_times_a_lease_so_that_no_outage_is_missed_between_sweeps(
    ledger: Ledger, make: Make, clock: Clock
) -> None:
    reaper = make()
    pauses = []
    for _ in range(20):
        await reaper.tick()
        pauses.append(reaper.pause())
        clock.now += pauses[-1]

    assert max(pauses) <= TTL / 4 * 1.1
    assert min(pauses) > 0


async def test_an_approval_ends_when_its_time_is_over_and_not_with_the_next_sweep(
    ledger: Ledger, make: Make, clock: Clock, connection: asyncpg.Connection
) -> None:
    reaper = make(grace=0)
    await reaper.tick()
    await asked(ledger, wait=3600)
    lease = await asked(ledger, wait=20)

    await reaper.tick()
    assert 0 < reaper.pause() <= 20 + SPREAD_SECONDS
    await set_clock(connection, timedelta(seconds=20))
    [run] = await reaper.tick()

    assert (run.run_id, run.state) == (lease.run_id, State.CANCELLED)
    assert clock.now == 1_000.0
    assert await reaper.tick() == []
    assert reaper.pause() == ledger.settings.poll_seconds


async def asked(ledger: Ledger, *, wait: float) -> Lease:
    """Park a run on an approval that may stay undecided for so many seconds."""
    await ledger.submit("parse")
    [lease] = await ledger.claim("w:1")
    await ledger.transition(lease, "waiting_approval", park=True, wait=wait)
    return lease


async def test_what_is_due_ends_also_while_leases_are_waited_for(
    ledger: Ledger, make: Make, clock: Clock
) -> None:
    [dead] = await abandoned(ledger)
    lease = await asked(ledger, wait=0.001)
    await waiting.passed(ledger, (await ledger.get(lease.run_id)).wait_until)
    reaper = make()

    assert [run.run_id for run in await reaper.tick()] == [lease.run_id]
    assert await reaper.tick() == []
    assert (await ledger.get(dead.run_id)).state == State.RUNNING
    clock.now += TTL
    assert [run.run_id for run in await reaper.tick()] == [dead.run_id]


async def test_what_cannot_be_ended_is_left_to_the_sweeps(
    ledger: Ledger, make: Make, clock: Clock, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    reaper = make(grace=0)
    await reaper.tick()
    lease = await asked(ledger, wait=0.001)
    await waiting.passed(ledger, (await ledger.get(lease.run_id)).wait_until)

    async with connection.transaction():
        await connection.execute("SELECT FROM ledger.run_state FOR UPDATE")
        assert await reaper.tick() == []
        assert await reaper.tick() == []
        assert reaper.pause() > 0
    clock.now += 30
    assert [run.run_id for run in await reaper.tick()] == [lease.run_id]


async def test_what_the_database_refuses_to_end_is_left_to_the_sweeps_and_interrupts_nothing(
    ledger: Ledger,
    make: Make,
    clock: Clock,
    connection: asyncpg.Connection[asyncpg.Record],
    capsys: pytest.CaptureFixture[str],
) -> None:
    reaper = make(grace=0)
    await reaper.tick()
    lease = await asked(ledger, wait=0.001)
    await waiting.passed(ledger, (await ledger.get(lease.run_id)).wait_until)
    await connection.execute("""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
        AS $$BEGIN RAISE 'refused by a test'; END$$;
        CREATE TRIGGER refuse BEFORE INSERT ON ledger.event FOR EACH ROW
        WHEN (NEW.type = 'approval.expired') EXECUTE FUNCTION refuse();
    """)

    assert await reaper.tick() == []
    assert await reaper.tick() == []
    assert reaper.pause() > 0
    lines = capsys.readouterr().err
    assert lines.count("refused by a test") > 0
    assert names.REAPER_INTERRUPTED not in lines

    await connection.execute("DROP TRIGGER refuse ON ledger.event; DROP FUNCTION refuse()")
    clock.now += 30
    assert [run.run_id for run in await reaper.tick()] == [lease.run_id]


async def test_many_reapers_never_reap_a_run_twice(database: str, make: Make, clock: Clock) -> None:
    async with AsyncExitStack() as stack:
        ledgers = [
            await stack.enter_async_context(Ledger.open(database, PROJECT)) for _ in range(4)
        ]
        leases = await abandoned(ledgers[0], 200)
        reapers = [make(ledger, limit=7, grace=0) for ledger in ledgers]

        async def sweep(reaper: Reaper) -> list[UUID]:
            reaped: list[UUID] = []
            while await reaper.ledger.runs(state="running", limit=1):
                reaped += [run.run_id for run in await reaper.tick()]
                clock.now += reaper.pause()
            return reaped

        reaped = [run_id for part in await asyncio.gather(*map(sweep, reapers)) for run_id in part]

        assert Counter(reaped) == {lease.run_id: 1 for lease in leases}
        assert await compensations(ledgers[0]) == {
            (lease.run_id, lease.token): 1 for lease in leases
        }


async def test_a_full_sweep_is_followed_at_once_by_another(
    ledger: Ledger, make: Make, clock: Clock
) -> None:
    await abandoned(ledger, 25)
    reaper = make(limit=10, grace=0)

    swept = [(len(await reaper.tick()), reaper.pause() > 0) for _ in range(3)]

    assert swept == [(10, False), (10, False), (5, True)]
    assert await reaper.tick() == []


async def test_it_runs_until_it_is_cancelled(ledger: Ledger, make: Make, clock: Clock) -> None:
    started = clock.now
    duty = asyncio.create_task(make(limit=2).run())
    leases = await abandoned(ledger, 5)

    await waiting.until(lambda: _all_pending(ledger, leases))
    duty.cancel()
    with suppress(asyncio.CancelledError):
        await duty

    assert clock.now - started >= TTL
    assert duty.cancelled()


async def _all_pending(ledger: Ledger, leases: list[Lease]) -> bool:
    return len(await ledger.runs(state="pending")) == len(leases)


async def test_it_makes_partitions_ahead_at_the_start_and_hourly(
    ledger: Ledger, make: Make, clock: Clock, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    before = await _partitions(connection)
    reaper = make()

    await _drop(connection, before[-1])
    await reaper.tick()
    assert await _partitions(connection) == before

    await _drop(connection, before[-1])
    await reaper.tick()
    assert await _partitions(connection) == before[:-1]
    clock.now += PARTITIONS_SECONDS * 1.2
    await reaper.tick()
    assert await _partitions(connection) == before


async def _partitions(connection: asyncpg.Connection[asyncpg.Record]) -> list[str]:
    rows = await connection.fetch(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits "
        "WHERE inhparent = 'ledger.event'::regclass ORDER BY 1"
    )
    return [row["name"] for row in rows]


async def _drop(connection: asyncpg.Connection[asyncpg.Record], partition: str) -> None:
    await connection.execute(f"ALTER TABLE ledger.event DETACH PARTITION {partition}")
    await connection.execute(f"DROP TABLE {partition}")


async def test_settings_that_make_no_sense_are_refused(
    ledger: Ledger, subtests: pytest.Subtests
) -> None:
    for wrong in (
        {"every": 0},
        {"every": -1},
        {"grace": -1},
        {"grace": float("nan")},
        {"limit": 0},
    ):
        with subtests.test(f"{wrong}"), pytest.raises(InvalidValue, match=next(iter(wrong))):
            Reaper(ledger, **wrong)
