"""A database that goes away and comes back: work goes on, and nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import count
from typing import TypeVar

import asyncpg
import psutil  # type: ignore[import-untyped]
import pytest

from runfold.ledger import Ledger, State
from runfold.ledger.errors import DatabaseUnavailable, LeaseLost
from runfold.ledger.events import NoteAdded
from runfold.ledger.postgres.embedded.postgres import EmbeddedPostgres
from tests.support.databases import assert_consistent
from tests.support.runs import claimed, event_count
from tests.support.waiting import BOUND, blocked, until

T = TypeVar("T")
LEAST = 80


async def postmaster(ledger: Ledger) -> psutil.Process:
    """Find the server's main process."""
    return psutil.Process(await ledger.pool.fetchval("SELECT pg_backend_pid()")).parent()


async def gone(process: psutil.Process) -> None:
    """Return once the server's main process has ended."""
    await until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)


class Fleet:
    """A submitter and workers that go on after an outage, and remember every acknowledgement.

    There is work until the outage, however late the server ends.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.submitted: dict[str, object] = {}
        self.completed: dict[object, bytes] = {}
        self.outages = 0
        self.all_submitted = False

    async def submits(self) -> None:
        """Submit every run; look a commit of unknown outcome up by sending the same key again."""
        for i in count():
            if i >= LEAST and self.outages:
                break
            key = f"k-{i}"
            while key not in self.submitted:
                try:
                    self.submitted[key] = (
                        await self.ledger.submit("parse", i, key=key, max_attempts=99)
                    ).run_id
                except DatabaseUnavailable:
                    await self.outage()
            await until(lambda: self.outages or len(self.submitted) < len(self.completed) + LEAST)
        self.all_submitted = True

    async def works(self, worker_id: str) -> None:
        """Claim and complete until every run has ended."""
        while not self.all_submitted or len(self.completed) < len(self.submitted):
            try:
                await self.ledger.reap()
                for lease in await self.ledger.claim(worker_id, limit=3, ttl=2):
                    await self.ledger.heartbeat([lease])
                    done = await self.ledger.transition(
                        lease, State.COMPLETED, output=lease.input, key=f"done-{lease.input}"
                    )
                    self.completed[done.run_id] = done.hash
                ended = await self.ledger.runs(state=State.COMPLETED, limit=10_000)
                self.completed |= {
                    run.run_id: run.hash for run in ended if run.run_id not in self.completed
                }
            except DatabaseUnavailable:
                await self.outage()
            except LeaseLost:
                continue

    async def outage(self) -> None:
        """Wait a moment, as any worker would."""
        self.outages += 1
        await asyncio.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_a_claim_loop_survives_the_end_of_its_server(
    own_server: EmbeddedPostgres, own_ledger: Ledger, how: str
) -> None:
    fleet = Fleet(own_ledger)
    work = [
        asyncio.create_task(fleet.submits()),
        *(asyncio.create_task(fleet.works(f"w:{i}")) for i in range(3)),
    ]
    await until(lambda: len(fleet.completed) > 10)
    main = await postmaster(own_ledger)

    if how == "stop":
        await asyncio.to_thread(own_server.close)
    else:
        main.kill()  # its backends notice and go
    await gone(main)
    await until(lambda: fleet.outages > 0)
    before = dict(fleet.submitted), dict(fleet.completed)
    await asyncio.to_thread(own_server.start)
    await asyncio.wait_for(asyncio.gather(*work), BOUND)

    runs = {run.key: run for run in await own_ledger.runs(limit=10_000)}
    assert {run.state for run in runs.values()} == {State.COMPLETED}
    assert {key: run.run_id for key, run in runs.items()} == fleet.submitted
    assert before[0].items() <= fleet.submitted.items()
    assert {run.run_id: run.hash for run in runs.values()} == fleet.completed
    assert before[1].items() <= fleet.completed.items()
    for run in runs.values():
        kinds = Counter(event.type for event in await own_ledger.history(run.run_id))
        assert kinds["run.completed"] == 1
        assert kinds["lease.acquired"] == kinds["lease.expired"] + 1
    await assert_consistent(own_server.url())


async def test_while_the_server_is_down_every_operation_says_so(
    own_server: EmbeddedPostgres, own_ledger: Ledger
) -> None:
    lease = await claimed(own_ledger)
    await asyncio.to_thread(own_server.close)

    for call in (
        own_ledger.submit("parse"),
        own_ledger.claim("w:1"),
        own_ledger.heartbeat([lease]),
        own_ledger.transition(lease, State.COMPLETED),
        own_ledger.release(lease),
        own_ledger.cancel(lease.run_id),
        own_ledger.append(lease, NoteAdded(text="x")),
        own_ledger.reap(),
        own_ledger.get(lease.run_id),
        own_ledger.runs(),
        own_ledger.history(lease.run_id),
        own_ledger.state_at(lease.run_id, 1),
        own_ledger.verify(),
    ):
        with pytest.raises(DatabaseUnavailable):
            await call
    await asyncio.to_thread(own_server.start)

    assert (await own_ledger.transition(lease, State.COMPLETED)).version == 3
    await assert_consistent(own_server.url())


# -- single connections ----------------------------------------------------------------------------


async def test_idle_connections_that_were_terminated_are_replaced(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    await asyncio.gather(*(ledger.submit("parse") for _ in range(20)))
    others = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
        "AND application_name = 'runfold'"
    )
    pids = [row["pid"] for row in await connection.fetch(others)]
    assert len(pids) > 1
    await connection.fetch("SELECT pg_terminate_backend(p) FROM unnest($1::int[]) AS p", pids)
    left = "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = ANY ($1)"
    await until(lambda: connection.fetchval(left, pids))

    outcomes = await asyncio.gather(
        *(ledger.submit("parse") for _ in range(20)), return_exceptions=True
    )

    # A connection whose end the pool has not heard of yet may fail once, and only in this way.
    for _ in pids:
        outcomes += await asyncio.gather(ledger.submit("parse"), return_exceptions=True)
    assert all(
        isinstance(outcome, DatabaseUnavailable)
        for outcome in outcomes
        if isinstance(outcome, Exception)
    )
    fresh = await ledger.submit("parse")
    written = sum(not isinstance(outcome, BaseException) for outcome in outcomes)
    assert await event_count(ledger) == 20 + written + 1
    assert fresh.version == 1


async def test_a_statement_whose_backend_is_terminated_writes_nothing_and_can_be_sent_again(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    lease = await claimed(ledger)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(
        "SELECT FROM ledger.run_state WHERE run_id = $1 FOR UPDATE", lease.run_id
    )

    call = asyncio.create_task(ledger.transition(lease, State.COMPLETED, output=1, key="k"))
    waits = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
        "AND cardinality(pg_blocking_pids(pid)) > 0"
    )
    await until(lambda: connection.fetchval(waits))
    pid = await connection.fetchval(waits)
    await blocked(ledger, pid)
    assert await connection.fetchval("SELECT pg_terminate_backend($1)", pid)
    with pytest.raises(DatabaseUnavailable):
        await call
    await transaction.rollback()

    assert (await ledger.get(lease.run_id)).version == 2
    assert (await ledger.transition(lease, State.COMPLETED, output=1, key="k")).version == 3


async def test_a_cancelled_task_leaves_no_lock_and_nothing_half_written(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    lease = await claimed(ledger)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(
        "SELECT FROM ledger.run_state WHERE run_id = $1 FOR UPDATE", lease.run_id
    )

    call = asyncio.create_task(ledger.transition(lease, State.COMPLETED))
    waits = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0"
    )
    await until(lambda: connection.fetchval(waits))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await until(lambda: _none(connection, waits))
    await transaction.rollback()

    assert (await ledger.get(lease.run_id)).version == 2
    assert (await ledger.transition(lease, State.COMPLETED)).state == State.COMPLETED


async def _none(connection: asyncpg.Connection, count: str) -> bool:
    return bool(await connection.fetchval(count) == 0)
