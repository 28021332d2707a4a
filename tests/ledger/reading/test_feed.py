"""The feed gives every event once, in each run's order, beside writers that have not committed."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from uuid import UUID

import asyncpg
import pytest

from runfold.ledger import Ledger
from runfold.ledger.errors import CheckpointUnknown, DatabaseRefused, InvalidValue
from runfold.ledger.events import NoteAdded
from runfold.ledger.postgres.urls import driver_url
from runfold.ledger.reading import feed
from runfold.ledger.reading.feed import Checkpoint, Filter
from tests.support.databases import PROJECT, with_database
from tests.support.feeding import Reader, assert_complete, stored
from tests.support.runs import claimed
from tests.support.server import Server

NOTE = "SELECT * FROM ledger.append($1, 'test', $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"


async def note(connection: asyncpg.Connection[asyncpg.Record], *runs: UUID) -> None:
    """Append a note to each of these runs, in the connection's own transaction."""
    some: list[None] = [None] * len(runs)
    ones = [1] * len(runs)
    done = await connection.fetch(
        NOTE,
        PROJECT,
        list(runs),
        some,
        ["note.added"] * len(runs),
        ones,
        some,
        some,
        some,
        some,
        some,
        some,
        some,
    )
    assert len(done) == len(runs)


async def test_events_come_once_in_the_order_of_each_run(ledger: Ledger) -> None:
    lease = await claimed(ledger)
    reader = Reader(ledger.pool)
    await reader.drain()
    await ledger.transition(lease, "completed")
    await reader.drain()
    await reader.drain()

    assert_complete(reader, await stored(ledger.pool))
    assert [event.type for event in reader.events] == [
        "run.submitted",
        "lease.acquired",
        "run.completed",
    ]


async def test_nothing_is_new_at_this_moment(ledger: Ledger) -> None:
    await ledger.submit("parse")
    here = await feed.now(ledger.pool)

    assert await feed.towards(ledger.pool, here, 10) is None
    run = await ledger.submit("parse")

    on_the_way = await feed.towards(ledger.pool, here, 10)
    assert on_the_way is not None
    events, _ = await feed.read(ledger.pool, on_the_way, 10, Filter())
    assert [event.run_id for event in events] == [run.run_id]


async def test_events_that_commit_late_are_given_although_later_ones_were(
    ledger: Ledger, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    one, two = (await ledger.submit("parse")).run_id, (await ledger.submit("parse")).run_id
    reader = Reader(ledger.pool)
    async with connection.transaction():
        await note(connection, one)
        await ledger.append(two, NoteAdded(text="later"), actor="ann")
        await reader.drain()
        assert (two, 2) in reader.keys
        assert (one, 2) not in reader.keys

    await reader.drain()
    assert_complete(reader, await stored(ledger.pool))


@pytest.mark.parametrize("limit", [1, 2, 3, 1_000])
async def test_an_id_that_was_given_out_early_does_not_turn_a_runs_order(
    ledger: Ledger, connection: asyncpg.Connection[asyncpg.Record], limit: int
) -> None:
    """A transaction with the lower id waits for another's commit and appends after it."""
    one, two = (await ledger.submit("parse")).run_id, (await ledger.submit("parse")).run_id
    behind, live = Reader(ledger.pool, limit), Reader(ledger.pool, limit)
    async with connection.transaction():
        await note(connection, one)
        for _ in range(5):
            await ledger.append(two, NoteAdded(text="first"), actor="ann")
        await live.drain()
        await note(connection, two)
    await live.drain()
    await behind.drain()

    ids = await ledger.pool.fetch(
        "SELECT txid::text::bigint AS txid FROM ledger.event WHERE run_id = $1 ORDER BY version",
        two,
    )
    assert ids[-1]["txid"] < ids[-2]["txid"], "the trap was not set"
    assert_complete(live, await stored(ledger.pool))
    assert_complete(behind, await stored(ledger.pool))


@pytest.mark.parametrize("limit", [1, 7, 50])
async def test_one_transaction_that_is_larger_than_a_page_comes_in_pages(
    ledger: Ledger, connection: asyncpg.Connection[asyncpg.Record], limit: int
) -> None:
    await ledger.submit("parse")
    reader = Reader(ledger.pool, limit)
    async with connection.transaction():
        for _ in range(10):
            await ledger.submit_many([{"kind": "parse"}] * 5, connection=connection)
        await ledger.submit("between")
        await reader.drain()
    await ledger.submit("after")
    await reader.drain()
    await (fresh := Reader(ledger.pool, limit)).drain()

    assert_complete(reader, await stored(ledger.pool))
    assert_complete(fresh, await stored(ledger.pool))


async def test_a_long_writer_in_another_database_holds_nobody_up(
    ledger: Ledger, server: Server
) -> None:
    elsewhere = await asyncpg.connect(driver_url(with_database(server.url, "postgres")))
    try:
        async with elsewhere.transaction():
            assert await elsewhere.fetchval("SELECT pg_current_xact_id()::text")
            run = await ledger.submit("parse")
            reader = Reader(ledger.pool)
            await reader.drain()
            assert reader.keys == [(run.run_id, 1)]
        await ledger.submit("parse")
        await reader.drain()
        assert_complete(reader, await stored(ledger.pool))
    finally:
        await elsewhere.close()


async def test_aborted_transactions_and_savepoints_leave_nothing_and_hold_nothing_up(
    ledger: Ledger, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    run = (await ledger.submit("parse")).run_id
    reader = Reader(ledger.pool)
    aborted = connection.transaction()
    await aborted.start()
    await note(connection, run)
    await reader.drain()
    await aborted.rollback()
    async with connection.transaction():
        inner = connection.transaction()
        await inner.start()
        await note(connection, run)
        await inner.rollback()
        async with connection.transaction():
            await note(connection, run)
    await reader.drain()

    assert_complete(reader, await stored(ledger.pool))
    assert len(reader.keys) == 2


async def test_filters_are_bounds_of_what_is_read(ledger: Ledger) -> None:
    lease = await claimed(ledger)
    other = await ledger.submit("other")
    await ledger.heartbeat([lease])
    await ledger.transition(lease, "completed")

    async def given(**bounds: object) -> list[tuple[str, UUID]]:
        reader = Reader(ledger.pool, which=Filter(**bounds))  # type: ignore[arg-type]  # the test gives what Filter takes
        return [(event.type, event.run_id) for event in await reader.drain()]

    run = lease.run_id
    for _ in ("in its generation", "in one that has ended"):
        assert await given(kinds=["other"]) == [("run.submitted", other.run_id)]
        assert await given(states=["completed"]) == [("run.completed", run)]
        assert await given(types=["lease.heartbeat", "lease.acquired"]) == [
            ("lease.acquired", run),
            ("lease.heartbeat", run),
        ]
        assert await given(without=["lease.heartbeat", "run.submitted"]) == [
            ("lease.acquired", run),
            ("run.completed", run),
        ]
        assert await given(project_id="another") == []
        await ledger.pool.execute("SELECT ledger.feed_rebase()")


@pytest.mark.parametrize(
    "text", ["", "1", "1/2/3/4", "x/1:1:@0//0", "1/1:1:@0//0; DROP TABLE x", "1/1:1:@0//-1"]
)
def test_a_text_that_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue, match="checkpoint"):
        Checkpoint.parse(text)


async def test_a_reader_that_falls_behind_reads_in_bounded_pages(ledger: Ledger) -> None:
    for _ in range(30):
        await ledger.submit_many([{"kind": "parse"}] * 10)
    reader = Reader(ledger.pool, 40)
    sizes = []
    while True:
        before = len(reader.events)
        if not await reader.page():
            break
        sizes.append(len(reader.events) - before)

    assert_complete(reader, await stored(ledger.pool))
    assert len(sizes) <= 10
    assert max(sizes) <= 40


async def test_a_backlog_of_one_run_is_cut_at_each_page(ledger: Ledger) -> None:
    run = await ledger.submit("parse")
    for number in range(20):
        await ledger.append(run.run_id, NoteAdded(text=str(number)), actor="ann")
    reader = Reader(ledger.pool, 5)
    while await reader.page():
        assert reader.checkpoint.target is None

    assert_complete(reader, await stored(ledger.pool))


async def test_two_readers_at_once_each_get_everything(ledger: Ledger) -> None:
    await asyncio.gather(*(ledger.submit("parse") for _ in range(50)))
    readers = [Reader(ledger.pool, 7), Reader(ledger.pool, 100)]
    await asyncio.gather(*(reader.drain() for reader in readers))

    for reader in readers:
        assert_complete(reader, await stored(ledger.pool))


async def test_an_archived_month_vouches_for_no_checkpoint_beyond_its_last_event(
    ledger: Ledger, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    archive = (
        "INSERT INTO ledger.archive_event (project_id, number, recorded_at, type, actor, month,"
        " first, beyond, runs, events, payloads, generation, last_position, last_txid, size_bytes,"
        " sha256, file) SELECT '*', 1, now(), 'archive.detached', 'ann', '2025-01',"
        " ledger.uuid7(), ledger.uuid7(), 1, 1, 1, generation, 1, $1::text::xid8, 1, '', 'f'"
        " FROM ledger.feed_generation"
    )
    known = "SELECT ledger.check_moment(generation, '9:9:@1@0123456789abcdef')"
    for last, is_known in ((8, True), (7, False)):  # the newest transaction of the moment is 8
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(archive, str(last))
        with nullcontext() if is_known else pytest.raises(asyncpg.PostgresError, match="history"):
            await connection.execute(f"{known} FROM ledger.feed_generation")
        await transaction.rollback()


async def test_a_checkpoint_of_another_database_is_refused(
    ledger: Ledger, server: Server, database: str, template: str
) -> None:
    """The other database has as many events, at the same positions."""
    other = await asyncpg.connect(server.url)
    await other.execute(f"CREATE DATABASE {template}_other TEMPLATE {template}")
    try:
        async with Ledger.open(with_database(server.url, f"{template}_other"), PROJECT) as there:
            foreign = Reader(there.pool)
            for opened in (there, ledger):
                await opened.submit_many([{"kind": "parse"}] * 5)
            await foreign.drain()
        foreign.source = ledger.pool
        with pytest.raises(CheckpointUnknown, match="another"):
            await foreign.page()
        of_no_generation = Reader(ledger.pool)
        of_no_generation.checkpoint = Checkpoint(generation=7)
        with pytest.raises(CheckpointUnknown):
            await of_no_generation.page()
    finally:
        await other.execute(f"DROP DATABASE {template}_other WITH (FORCE)")
        await other.close()


async def test_a_checkpoint_stops_naming_a_transaction_that_ended_without_events(
    ledger: Ledger, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    reader = Reader(ledger.pool)
    transaction = connection.transaction()
    await transaction.start()
    open_id = await connection.fetchval("SELECT pg_current_xact_id()::text")
    await ledger.submit("parse")
    await reader.drain()
    assert open_id in reader.checkpoint.moment

    await transaction.rollback()
    await reader.drain()
    assert open_id not in reader.checkpoint.moment.split(":")[2]
    assert len(reader.keys) == 1


async def test_a_reader_that_sees_the_past_is_refused(
    ledger: Ledger, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await ledger.submit("parse")
    async with connection.transaction(isolation="repeatable_read"):
        with pytest.raises(DatabaseRefused, match="READ COMMITTED"):
            await Reader(connection).page()
