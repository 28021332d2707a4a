"""Plans are pinned: no hot statement scans a table, be it empty, grown or full of dead rows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from datetime import datetime, timedelta

import asyncpg
import pytest

from runfold.ledger import Lease, Ledger, Run, State, Submit, Transition
from runfold.ledger.events import NoteAdded
from runfold.ledger.operations import claim
from runfold.ledger.operations.reap import pulse
from tests.support.databases import PROJECT
from tests.support.runs import TINY
from tests.support.waiting import lapsed

pytestmark = pytest.mark.new_database

BATCH = 200
GROWN = 20_000
# How many rows an operation may fetch by index for each run of its batch, over all tables. The
# least is three or four: to lock the run, to fold its event, to read its content; a refusal reads
# the run's few events as well. A plan that flipped fetches all rows of the project.
FETCHES = 20
SCANS = (
    "SELECT coalesce(sum(seq_scan), 0)::bigint AS scans, coalesce(sum(idx_tup_fetch), "
    "0)::bigint AS fetched FROM pg_stat_user_tables WHERE schemaname = 'ledger' "
    "AND (relname IN ('run_state', 'payload') OR relname LIKE 'event%')"
)
ANALYZE = (
    "ANALYZE ledger.event, ledger.payload, ledger.run_state, ledger.kind, ledger.command, "
    "ledger.project"
)


@pytest.fixture
async def single(database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ledger]:
    """A ledger with one connection, whose plans are made on empty and just analysed tables."""
    monkeypatch.setenv("RUNFOLD_POOL_SIZE", "1")
    async with Ledger.open(database, PROJECT) as opened:
        await opened.pool.execute(ANALYZE)
        yield opened


async def counters(ledger: Ledger) -> tuple[int, int]:
    """Count the sequential scans and the rows fetched by index so far."""
    await ledger.pool.execute("SELECT pg_stat_force_next_flush()")
    row = await ledger.pool.fetchrow(SCANS)
    assert row is not None
    return row["scans"], row["fetched"]


class Meter:
    """Runs operations and notes what each one read."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.scans: dict[str, int] = {}
        self.fetched: dict[str, int] = {}

    async def of(self, name: str, operation: Awaitable[object]) -> None:
        """Run one operation."""
        before = await counters(self._ledger)
        await operation
        after = await counters(self._ledger)
        self.scans[name], self.fetched[name] = after[0] - before[0], after[1] - before[1]


async def measured(ledger: Ledger, batch: int) -> Meter:
    """Run every batched operation on `batch` runs, and every single one on one."""
    meter = Meter(ledger)
    leases: list[Lease] = []

    async def claim(ttl: float = 86_400) -> None:
        leases[:] = await ledger.claim("w:1", limit=batch, ttl=ttl)
        assert len(leases) == batch

    async def move(state: State, *, fine: bool = True) -> None:
        results = await ledger.transition_many(
            [Transition(lease, state, output={"x": 1}) for lease in leases]
        )
        assert all(isinstance(result, Exception) != fine for result in results)

    async def beat(*, lost: bool = False) -> None:
        assert all(lease.lost == lost for lease in await ledger.heartbeat(leases))

    async def reap() -> None:
        reaped: list[Run] = await ledger.reap()
        assert len(reaped) == batch

    await meter.of(
        "submit",
        ledger.submit_many([Submit(kind="parse", input=i, key=None) for i in range(batch)]),
    )
    await meter.of("submit again", ledger.submit("parse", key="k"))
    await meter.of("claim", claim())
    await meter.of("heartbeat", beat())
    await meter.of("append", ledger.append(leases[0], NoteAdded(text="x")))
    await meter.of("waiting", move(State.WAITING_TOOL))
    await meter.of("answered", move(State.RUNNING))
    await meter.of("refused", move(State.PENDING, fine=False))
    await meter.of("completed", move(State.COMPLETED))
    await meter.of("lost", beat(lost=True))
    await ledger.submit_many([Submit(kind="parse")] * batch)
    await meter.of("claim to lose", claim(TINY))
    await lapsed(ledger, *leases)
    await meter.of("reap", reap())
    await meter.of("claim again", claim())
    await meter.of("release", ledger.release(leases[0]))
    await meter.of("cancel", ledger.cancel(leases[1].run_id))
    return meter


async def read(ledger: Ledger, run: Run) -> Meter:
    """Read one run in every way, often enough for prepared statements to keep their plans."""
    meter = Meter(ledger)
    for _ in range(7):
        await meter.of("get", ledger.get(run.run_id))
        await meter.of("history", ledger.history(run.run_id))
        await meter.of("state_at", ledger.state_at(run.run_id, 1))
    return meter


def assert_narrow(meter: Meter, batch: int) -> None:
    """Fail where an operation scanned a table or read more than in proportion to its batch."""
    assert {name: scans for name, scans in meter.scans.items() if scans} == {}
    limit = FETCHES * batch + 50
    assert {name: fetched for name, fetched in meter.fetched.items() if fetched > limit} == {}


@pytest.mark.slow
async def test_plans_made_on_empty_tables_stay_narrow_when_the_tables_have_grown(
    single: Ledger, connection: asyncpg.Connection, database: str
) -> None:
    on_empty = await measured(single, 5)
    for _ in range(GROWN // 10_000):
        await single.submit_many(
            [Submit(kind="parse", input=1, priority=1)] * 10_000, connection=connection
        )

    same_session = await measured(single, BATCH)
    await connection.execute(ANALYZE)
    same_session_analysed = await measured(single, BATCH)
    async with Ledger.open(database, PROJECT) as fresh:
        fresh_session = await measured(fresh, BATCH)

    assert_narrow(on_empty, 5)
    assert_narrow(same_session, BATCH)
    assert_narrow(same_session_analysed, BATCH)
    assert_narrow(fresh_session, BATCH)


async def test_claims_of_a_limited_kind_stay_narrow_when_the_tables_have_grown(
    single: Ledger, connection: asyncpg.Connection
) -> None:
    await single.limit_kind("parse", 3 * BATCH, ahead=True)
    on_empty = await measured(single, 5)
    await single.submit_many(
        [Submit(kind="parse", input=1, priority=1)] * 10_000, connection=connection
    )

    grown = await measured(single, BATCH)

    assert_narrow(on_empty, 5)
    assert_narrow(grown, BATCH)


async def test_reads_planned_on_small_tables_stay_narrow_when_the_tables_have_grown(
    single: Ledger, connection: asyncpg.Connection
) -> None:
    run = await single.submit("parse", {"a": 1})
    await connection.execute(ANALYZE)
    await read(single, run)  # a table of one page is best scanned
    await connection.execute("ALTER TABLE ledger.run_state SET (autovacuum_enabled = off)")
    await single.submit_many([Submit(kind="parse", input=1)] * 10_000, connection=connection)

    grown = await read(single, run)
    await connection.execute(ANALYZE)
    analysed = await read(single, run)

    assert_narrow(analysed, 1)
    assert_narrow(grown, 1)


async def test_each_content_of_a_long_history_is_looked_up_by_its_key(
    single: Ledger, connection: asyncpg.Connection
) -> None:
    """Among short runs a plan may read all contents of the run again for each event."""
    run, notes = await single.submit("long", 1), 100
    await single.submit_many([Submit(kind="parse", input=1)] * 5_000, connection=connection)
    for _ in range(notes):
        await single.append(run.run_id, NoteAdded(text="x"))
    await connection.execute(ANALYZE)
    lookups = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'payload_pkey'"

    await single.pool.execute("SELECT pg_stat_force_next_flush()")
    before = await single.pool.fetchval(lookups)
    assert len(await single.history(run.run_id)) == notes + 1
    await single.pool.execute("SELECT pg_stat_force_next_flush()")

    assert await single.pool.fetchval(lookups) - before > notes


async def test_the_guard_above_fires_when_a_plan_is_not_pinned(
    single: Ledger, connection: asyncpg.Connection
) -> None:
    await single.submit_many([Submit(kind="parse", input=1)] * 2_000, connection=connection)
    await connection.execute("ALTER FUNCTION ledger.heartbeat RESET ALL")
    await connection.execute(
        "ALTER FUNCTION ledger.heartbeat SET enable_indexscan = off SET enable_bitmapscan = off "
        "SET enable_seqscan = on"
    )
    meter = Meter(single)
    leases = await single.claim("w:1", limit=BATCH)

    await meter.of("heartbeat", single.heartbeat(leases))

    with pytest.raises(AssertionError):
        assert_narrow(meter, BATCH)


async def test_claims_do_not_walk_the_entries_of_runs_that_were_taken_while_a_snapshot_is_held(
    single: Ledger, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim, "RESCAN_SECONDS", 3_600)
    runs, batch = 3_000, 100
    await single.submit_many([Submit(kind="parse")] * runs)
    snapshot = connection.transaction(isolation="repeatable_read")
    await snapshot.start()
    await connection.fetchval("SELECT count(*) FROM ledger.run_state")
    entries = (
        "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE schemaname = 'ledger' "
        "AND indexrelname = 'run_claimable'"
    )

    async def read() -> int:
        await single.pool.execute("SELECT pg_stat_force_next_flush()")
        return int(await single.pool.fetchval(entries))

    before = await read()
    for _ in range(runs // batch):
        leases = await single.claim("w:1", limit=batch)
        assert len(leases) == batch
        await single.transition_many([Transition(lease, State.COMPLETED) for lease in leases])
    walked = await read() - before
    await snapshot.rollback()

    # From the start each time it would be the sum of 100, 200, … 3,000.
    from_the_start = batch * sum(range(1, runs // batch + 1))
    assert walked < from_the_start / 3


async def test_the_next_due_time_is_one_entry_of_an_index_also_while_a_snapshot_is_held(
    single: Ledger, connection: asyncpg.Connection
) -> None:
    await single.submit_many([Submit(kind="parse", deadline=50)] * 2_000)
    [(first, swept)] = await connection.fetch(
        "SELECT min(deadline), max(deadline) FROM ledger.run_state"
    )
    entries = (
        "SELECT idx_tup_read FROM pg_stat_user_indexes "
        "WHERE schemaname = 'ledger' AND indexrelname = 'run_due'"
    )

    async def probed(after: datetime | None) -> tuple[datetime | None, int, int]:
        scans = (await counters(single))[0]
        read = await single.pool.fetchval(entries)
        due = (await pulse(single.project, after)).due
        return (
            due,
            (await counters(single))[0] - scans,
            await single.pool.fetchval(entries) - read,
        )

    assert await probed(None) == (first, 0, 1)

    snapshot = connection.transaction(isolation="repeatable_read")
    await snapshot.start()
    await connection.fetchval("SELECT count(*) FROM ledger.run_state")
    leases = await single.claim("w:1", limit=2_000)
    await single.transition_many([Transition(lease, State.COMPLETED) for lease in leases])
    later = await single.submit_many([Submit(kind="parse", deadline=3_600)] * 2_000)
    leases = await single.claim("w:1", limit=2_000)
    await single.transition_many([Transition(lease, State.COMPLETED) for lease in leases])
    await single.submit("parse", deadline=7_200)
    assert len(later) == len(leases)
    due, scans, read = await probed(swept)
    assert (due, scans) == (None, 0), "nothing within a minute"
    assert read < 10
    last = await single.submit("parse", deadline=55)
    due, scans, read = await probed(swept)
    await snapshot.rollback()

    assert (due, scans) == (last.deadline, 0)
    assert read < 10


async def test_a_heartbeat_touches_no_index(single: Ledger) -> None:
    await single.submit_many([Submit(kind="parse")] * BATCH)
    leases = [
        replace(lease, ttl=timedelta(seconds=90))
        for lease in await single.claim("w:1", limit=BATCH)
    ]
    await single.pool.execute("VACUUM ledger.run_state")
    updates = (
        "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables "
        "WHERE relid = 'ledger.run_state'::regclass"
    )
    await single.pool.execute("SELECT pg_stat_force_next_flush()")
    before = await single.pool.fetchrow(updates)
    assert before is not None

    for _ in range(3):
        await single.heartbeat(leases)
    await single.pool.execute("SELECT pg_stat_force_next_flush()")
    after = await single.pool.fetchrow(updates)
    assert after is not None

    assert after["n_tup_upd"] - before["n_tup_upd"] == 3 * BATCH
    assert after["n_tup_hot_upd"] - before["n_tup_hot_upd"] >= 0.8 * 3 * BATCH
