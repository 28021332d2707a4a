"""No month that is still needed is archived, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from runfold.ledger import Ledger
from runfold.ledger.archive import export as exporting
from runfold.ledger.archive import obstacles as looking
from runfold.ledger.archive.file import Writer
from runfold.ledger.errors import (
    ArchiveRefused,
    FeedArchived,
    InvalidValue,
    LockTimeout,
    MissingPartition,
    RunNotFound,
)
from runfold.ledger.events import NoteAdded
from runfold.ledger.postgres import locks, schema
from runfold.ledger.postgres.urls import driver_url
from runfold.projections.declared.catch_up import CatchUp
from runfold.projections.declared.installing import install
from runfold.projections.models.counts import RUN_COUNTS
from tests.ledger.reading.test_feed import note
from tests.support.archiving import WHY, archived, ended, state_of
from tests.support.clock import set_clock_of_ids
from tests.support.databases import PROJECT
from tests.support.feeding import Reader
from tests.support.past_month import MONTH, THEN, in_that_month
from tests.support.snapshots import held_snapshots
from tests.support.waiting import BOUND, until

WAITING = (
    "SELECT count(*) = $1 FROM pg_stat_activity "
    "WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0"
)


async def test_what_is_still_needed_is_not_archived(
    ledger: Ledger,
    connection: asyncpg.Connection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(looking, "_PAGE", 1)
    async with in_that_month(connection):
        run_id = await ended(ledger)
        open_ = await ledger.submit("parse")
    await install(ledger.pool, RUN_COUNTS)
    await ledger.archive.hold(MONTH, actor="ann", reason="case 7")
    await ledger.archive.hold((PROJECT, run_id), actor="bob", reason="case 8")

    async def obstacles(month: str = MONTH, *, detach: bool = False) -> str:
        planned = await ledger.archive.plan(month, detach=detach)
        doing = (
            ledger.archive.detach(month, **WHY)
            if detach
            else ledger.archive.export(month, tmp_path, **WHY)
        )
        with pytest.raises(ArchiveRefused) as caught:
            await doing
        assert planned.obstacles == caught.value.obstacles
        return "; ".join(planned.obstacles)

    await connection.execute(
        "INSERT INTO ledger.projection_aside (relation, name, project_id, run_id, "
        "first_position, last_position) VALUES ('projection.run_counts_v1', 'run_counts', $1, "
        "$2, 1, 1)",
        PROJECT,
        run_id,
    )
    assert (await ledger.archive.plan(MONTH)).events > 2
    found = await obstacles()
    assert "projection run_counts has set aside: 1" in found
    await connection.execute("DELETE FROM ledger.projection_aside")
    assert "runs that have not ended: 1" in found
    assert "ann holds the month: case 7" in found
    assert f"bob holds run {run_id} of {PROJECT}: case 8" in found
    assert "run_counts has not read all of the month" in found
    assert "is not over" in await obstacles(f"{datetime.now(UTC):%Y-%m}")
    assert "no events of the month" in await obstacles("1999-01")

    await ledger.cancel(open_.run_id)
    for target in (MONTH, (PROJECT, run_id)):
        await ledger.archive.release(target, actor="ann", reason="closed")
        with pytest.raises(ArchiveRefused, match="nobody holds"):
            await ledger.archive.release(target, actor="ann", reason="closed")
    assert (await ledger.archive.plan(MONTH)).obstacles == (
        (
            "projection run_counts has not read all of the month "
            "(`runfold projections run run_counts --once`)"
        ),
    )
    await CatchUp(ledger.pool, RUN_COUNTS).to_the_end()
    assert "is not exported" in await obstacles(detach=True)

    await ledger.archive.export(MONTH, tmp_path, **WHY)
    await ledger.append(run_id, NoteAdded(text="late"))
    assert "events were appended since the export" in await obstacles(detach=True)
    assert await state_of(ledger) == "exported"
    await CatchUp(ledger.pool, RUN_COUNTS).to_the_end()
    await archived(ledger, tmp_path)
    assert "detached already" in "; ".join((await ledger.archive.plan(MONTH)).obstacles)

    for wrong in ("2026-13", "July", "2026-1", ""):
        with pytest.raises(InvalidValue, match="such as 2026-01"):
            await ledger.archive.plan(wrong)
    with pytest.raises(RunNotFound):
        await ledger.archive.hold((PROJECT, UUID(int=7)), **WHY)
    with pytest.raises(ArchiveRefused, match="not detached"):
        await ledger.archive.attach("1999-01", **WHY)


async def test_an_export_holds_no_snapshot_from_page_to_page(
    ledger: Ledger,
    connection: asyncpg.Connection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with in_that_month(connection):
        for _ in range(3):
            await ended(ledger)
    held: list[int] = []
    loop, add = asyncio.get_running_loop(), Writer.add

    def add_and_look(self: Writer, page: Any) -> None:
        seen = asyncio.run_coroutine_threadsafe(held_snapshots(connection), loop)
        held.append(seen.result())
        add(self, page)

    monkeypatch.setattr(exporting, "ROWS_A_GROUP", 2)
    monkeypatch.setattr(Writer, "add", add_and_look)
    await archived(ledger, tmp_path)

    assert len(held) > 2
    assert set(held) == {0}
    assert (await ledger.verify()).findings == ()


async def test_a_month_that_is_written_to_while_it_is_exported_is_refused(
    ledger: Ledger,
    connection: asyncpg.Connection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with in_that_month(connection):
        runs = [await ended(ledger) for _ in range(3)]
    written = exporting._write  # noqa: SLF001  the moment that is tested

    async def write_and_append(*arguments: Any) -> int:
        payloads = await written(*arguments)
        await ledger.append(runs[0], NoteAdded(text="late"))
        return payloads

    monkeypatch.setattr(exporting, "_write", write_and_append)
    with pytest.raises(ArchiveRefused, match="export again"):
        await ledger.archive.export(MONTH, tmp_path, **WHY)

    monkeypatch.undo()
    await archived(ledger, tmp_path)


async def test_an_interrupted_detach_is_repeated(
    ledger: Ledger, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    async with in_that_month(connection):
        run_id = await ended(ledger)
    note = await connection.fetchrow(
        "SELECT * FROM ledger.payload WHERE run_id = $1 AND version = 4", run_id
    )
    await archived(ledger, tmp_path)
    await connection.execute(
        "INSERT INTO ledger.payload VALUES ($1, $2, $3, $4, $5)", *(note or ())
    )

    assert (await ledger.verify()).ok
    await ledger.archive.detach(MONTH, **WHY)

    assert (
        await connection.fetchval("SELECT count(*) FROM ledger.payload WHERE run_id = $1", run_id)
        == 2
    )
    assert len(await ledger.archive.history(MONTH)) == 2


async def test_a_detach_that_meets_locks_changes_nothing_and_names_what_stayed_locked(
    ledger: Ledger,
    connection: asyncpg.Connection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(locks, "LOCK_TIMEOUT", "20ms")
    monkeypatch.setattr(locks, "TRIES", 2)
    async with in_that_month(connection):
        await ended(ledger)
    await ledger.archive.export(MONTH, tmp_path, **WHY)

    async with connection.transaction():
        await connection.execute("LOCK TABLE ledger.event IN ROW SHARE MODE")
        with pytest.raises(LockTimeout, match="the event table stayed locked through 2 tries"):
            await ledger.archive.detach(MONTH, **WHY)

    assert await state_of(ledger) == "exported"
    await ledger.archive.detach(MONTH, **WHY)
    assert await state_of(ledger) == "detached"


async def test_an_event_that_committed_late_and_was_not_read_keeps_its_month(
    ledger: Ledger, connection: asyncpg.Connection, database: str, tmp_path: Path
) -> None:
    """Its id is lower than that of the newest event, which was read."""
    await install(ledger.pool, RUN_COUNTS)
    projection = CatchUp(ledger.pool, RUN_COUNTS)
    writer = await asyncpg.connect(driver_url(database))
    async with in_that_month(connection):
        run_id = await ended(ledger)
        async with writer.transaction():
            await note(writer, run_id)
            await ended(ledger)
            await projection.to_the_end()
    await writer.close()

    with pytest.raises(ArchiveRefused, match="run_counts"):
        await archived(ledger, tmp_path)
    await projection.to_the_end()
    await archived(ledger, tmp_path)


async def test_a_page_of_the_feed_that_waited_for_a_detach_passes_over_nothing(
    ledger: Ledger, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    async with in_that_month(connection):
        for _ in range(4):
            await ended(ledger)
    await ledger.submit("parse")
    reader = Reader(ledger.pool, 4)
    await reader.page()
    await ledger.archive.export(MONTH, tmp_path, **WHY)

    async def waiting(backends: int) -> None:
        await until(lambda: ledger.pool.fetchval(WAITING, backends))

    async with connection.transaction():
        await connection.execute("LOCK TABLE ledger.event IN ACCESS SHARE MODE")
        detaching = asyncio.create_task(ledger.archive.detach(MONTH, **WHY))
        await waiting(1)
        reading = asyncio.create_task(reader.page())
        await waiting(2)
    await detaching

    with pytest.raises(FeedArchived):
        await reading


async def test_only_an_event_that_came_after_the_export_is_refused_as_one(
    ledger: Ledger,
    connection: asyncpg.Connection,
    database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And not that a transaction is open all the while, whatever its id is."""
    monkeypatch.setattr(locks, "LOCK_TIMEOUT", f"{BOUND}s")
    writer = await asyncpg.connect(driver_url(database))
    transaction = writer.transaction()
    await transaction.start()
    await writer.execute("SELECT pg_current_xact_id()")
    async with in_that_month(connection):
        run_id = await ended(ledger)
    await archived(ledger, tmp_path)
    await ledger.archive.attach(MONTH, **WHY)
    await ledger.archive.export(MONTH, tmp_path, **WHY)

    await note(writer, run_id)
    detaching = asyncio.create_task(ledger.archive.detach(MONTH, **WHY))
    await until(lambda: ledger.pool.fetchval(WAITING, 1))
    await transaction.commit()
    await writer.close()

    with pytest.raises(ArchiveRefused, match="events were appended since"):
        await detaching
    assert await state_of(ledger) == "exported"


async def test_a_hold_that_is_being_placed_keeps_its_month(
    ledger: Ledger, connection: asyncpg.Connection, database: str, tmp_path: Path
) -> None:
    async with in_that_month(connection):
        await ended(ledger)
    await ledger.archive.export(MONTH, tmp_path, **WHY)
    holder = await asyncpg.connect(driver_url(database))
    transaction = holder.transaction()
    await transaction.start()
    await holder.execute(
        "INSERT INTO ledger.archive_event (project_id, number, recorded_at, type, actor,"
        " reason, month) VALUES ('*', 2, ledger.now(), 'hold.placed', 'ann', 'case 9', $1)",
        MONTH,
    )

    detaching = asyncio.create_task(ledger.archive.detach(MONTH, **WHY))
    while not await connection.fetchval(WAITING, 1):
        assert not detaching.done()
    await transaction.commit()
    await holder.close()

    with pytest.raises(ArchiveRefused, match="hold was placed"):
        await detaching
    assert await state_of(ledger) == "exported"


async def test_a_hold_that_is_placed_while_a_month_is_exported_keeps_it_from_its_file(
    ledger: Ledger, connection: asyncpg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with in_that_month(connection):
        await ended(ledger)
    written = exporting._exported  # noqa: SLF001  what is done before the record

    async def held_meanwhile(*asked: Any) -> dict[str, Any]:
        facts = await written(*asked)
        await ledger.archive.hold(MONTH, actor="ann", reason="case 11")
        return facts

    monkeypatch.setattr(exporting, "_exported", held_meanwhile)
    with pytest.raises(ArchiveRefused, match="ann holds the month: case 11"):
        await ledger.archive.export(MONTH, tmp_path, **WHY)

    assert [row["type"] for row in await ledger.archive.history(MONTH)] == ["hold.placed"]
    assert await asyncio.to_thread(os.listdir, tmp_path) == []


async def test_a_clock_that_shows_an_archived_month_makes_no_second_one(
    ledger: Ledger, connection: asyncpg.Connection[Any], tmp_path: Path
) -> None:
    async with in_that_month(connection):
        run_id = await ended(ledger)
    await archived(ledger, tmp_path)

    await set_clock_of_ids(connection, THEN, timedelta(milliseconds=1))
    for key in (None, "once"):
        with pytest.raises(MissingPartition, match="the server's clock is wrong"):
            await ledger.submit("parse", key=key)
    month_before = THEN - timedelta(days=THEN.day + 1)
    await set_clock_of_ids(connection, month_before, timedelta(milliseconds=1))
    await connection.execute("SELECT ledger.make_partitions()")
    await connection.execute(schema.sql("values/uuid7"))

    await ledger.archive.attach(MONTH, **WHY)
    assert (await ledger.history(run_id))[-1].type == "run.completed"
