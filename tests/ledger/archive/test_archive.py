"""The archive: a month in a file is read, proved and replayed as before; no needed month goes."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pyarrow as pa
import pytest
from pyarrow import parquet

from runfold.ledger import Ledger, State, Transition
from runfold.ledger.archive import export as exporting
from runfold.ledger.archive.attach import attach
from runfold.ledger.archive.file import Writer, check_file
from runfold.ledger.archive.holds import hold
from runfold.ledger.archive.record import history
from runfold.ledger.errors import (
    AccessDenied,
    ArchiveRefused,
    ArchiveUnusable,
    ConfigurationError,
    DecisionRefused,
    DuplicateKey,
    FeedArchived,
    IllegalTransition,
    InvalidValue,
    LeaseLost,
    LockTimeout,
    MissingPartition,
    RunNotFound,
)
from runfold.ledger.events import NoteAdded
from runfold.ledger.months import bounds
from runfold.ledger.postgres import locks
from runfold.ledger.postgres.urls import driver_url
from runfold.ledger.reading.verify import verify
from runfold.projections.declared.catch_up import CatchUp
from runfold.projections.declared.installing import install
from runfold.projections.declared.refold import refold
from runfold.projections.declared.status import statuses
from runfold.projections.models.counts import RUN_COUNTS
from runfold.projections.state import drift
from runfold.projections.state.repair import repair
from runfold.projections.state.replay import replay, replay_until
from tests.conftest import PROJECT
from tests.ledger.reading.test_feed import note
from tests.support.feeding import Reader
from tests.support.past_month import MONTH, THEN, in_that_month
from tests.support.runs import claimed
from tests.support.waiting import until

WAITING = (
    "SELECT count(*) = $1 FROM pg_stat_activity "
    "WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0"
)
WHY: dict[str, Any] = {"actor": "auditor", "reason": "retention"}


async def ended(ledger: Ledger, outcome: State = State.COMPLETED, **submit: Any) -> UUID:
    """Bring a run with beats, a note and costs to its end."""
    lease = await claimed(
        ledger, input={"path": "a.py", "n": [1, "ü"]}, tags=("nightly",), **submit
    )
    [lease] = await ledger.heartbeat([lease])
    await ledger.append(lease, NoteAdded(name="half", text="way"))
    await ledger.transition(
        lease, outcome, output={"lines": 3}, cost_usd_delta=0.25, step_count_delta=2
    )
    return lease.run_id


HELD = (
    "SELECT count(*) FROM pg_stat_activity WHERE backend_xmin IS NOT NULL "
    "AND pid <> pg_backend_pid() AND datname = current_database()"
)


async def signed(ledger: Ledger) -> UUID:
    """Bring a run that two persons approved to its end."""
    lease = await claimed(ledger)
    content = {"prompt": "Pay?", "approvals": 2}
    asked = await ledger.transition(lease, State.WAITING_APPROVAL, content=content)
    for name in ("ann", "bob"):
        await ledger.approve(asked, actor=name)
    await ledger.transition(lease, State.COMPLETED)
    return lease.run_id


async def archived(ledger: Ledger, folder: Path) -> None:
    """Export and detach the month."""
    await ledger.archive.export(MONTH, folder, **WHY)
    await ledger.archive.detach(MONTH, **WHY)


@pytest.fixture
async def damaging(unverified_database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to a database that the test will damage."""
    opened = await asyncpg.connect(driver_url(unverified_database))
    yield opened
    await opened.close()


async def rows(connection: asyncpg.Connection, table: str) -> list[Any]:
    """Return every row of a table of events or payloads."""
    return await connection.fetch(
        f"SELECT t.*::text FROM ledger.{table} AS t ORDER BY project_id, run_id, version"
    )


async def state_of(ledger: Ledger) -> str:
    """Return the status of the month."""
    [month] = [one for one in await ledger.archive.months() if one.month == MONTH]
    return month.state


async def test_a_detached_month_is_read_and_proved_as_before(
    ledger: Ledger, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    async with in_that_month(connection):
        ids = [await ended(ledger), await ended(ledger, State.FAILED)]
    ids.append(await ended(ledger))
    late = THEN + timedelta(hours=1)

    async def seen() -> list[Any]:
        found: list[Any] = [await ledger.get(run_id) for run_id in ids] + [
            await ledger.history(run_id) for run_id in ids
        ]
        found += [
            await ledger.history(ids[0], after=2),
            await ledger.history(ids[0], after=1, limit=2),
            await ledger.history(ids[0], heartbeats=False),
            await ledger.history(ids[0], after=5),
            await ledger.runs(),
        ]
        found += [await ledger.state_at(ids[1], version) for version in range(1, 6)]
        found += [
            await ledger.state_at(ids[0], late),
            await ledger.runs(at=late),
            await ledger.runs(at=late, limit=1),
        ]
        found += [
            await ledger.runs(at=late, state="failed"),
            await ledger.runs(at=late, worker_id="w:9"),
        ]
        found += [await ledger.diff(ids[0], 2), await ledger.verify(), await ledger.verify(ids[0])]
        return found

    before = await seen()
    exported = await ledger.archive.export(MONTH, tmp_path, **WHY)
    assert await seen() == before
    await ledger.archive.detach(MONTH, **WHY)

    assert await seen() == before
    assert (exported.runs, exported.events, exported.payloads) == (2, 10, 6)
    assert await connection.fetchval("SELECT count(*) FROM ledger.event") == 5
    kept = await connection.fetch(
        "SELECT version FROM ledger.payload WHERE run_id < $1", bounds(MONTH)[1]
    )
    assert sorted(row["version"] for row in kept) == [1, 1, 5, 5]
    assert os.stat(exported.path).st_mode & 0o777 == 0o600
    assert [found async for found in drift.check(ledger)] == []
    chain = check_file(exported.path)
    assert (chain.events, chain.findings) == (10, [])


async def test_what_several_approved_is_archived_whole_and_decided_no_more(
    ledger: Ledger, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    async with in_that_month(connection):
        run_id = await signed(ledger)
    before = await ledger.history(run_id)
    await archived(ledger, tmp_path)

    assert await ledger.history(run_id) == before
    assert [getattr(event, "approved", None) for event in before] == [None, None, 0, 1, 2, None]
    assert (await ledger.state_at(run_id, 4)).approved == 1
    assert (await ledger.verify(run_id)).findings == ()
    with pytest.raises(IllegalTransition, match="waits for no approval"):
        await ledger.reject(await ledger.get(run_id), actor="late")


async def test_nobody_decides_where_another_must_while_who_asked_is_in_a_file(
    ledger: Ledger, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    async with in_that_month(connection):
        parent = await ended(ledger, actor="zoe")
    lease = await claimed(ledger, parent=parent)
    asked = await ledger.ask_approval(lease, "Pay?", other_person=True)
    await archived(ledger, tmp_path)
    with pytest.raises(DecisionRefused, match="archived or erased"):
        await ledger.approve(asked, actor="zoe")
    await ledger.archive.attach(MONTH, **WHY)
    with pytest.raises(DecisionRefused, match="zoe submitted it"):
        await ledger.approve(asked, actor="zoe")

    assert (await ledger.approve(asked, actor="ann")).available_at is not None


async def test_a_month_that_is_attached_again_is_what_it_was(
    ledger: Ledger, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    async with in_that_month(connection):
        for _ in range(3):
            await ended(ledger)
    before = await rows(connection, "event"), await rows(connection, "payload")

    await archived(ledger, tmp_path)
    await ledger.archive.attach(MONTH, **WHY)

    assert (await rows(connection, "event"), await rows(connection, "payload")) == before
    with pytest.raises(asyncpg.PostgresError, match="append-only"):
        await connection.execute(f"DELETE FROM ledger.event_{MONTH.replace('-', '_')}")
    with pytest.raises(asyncpg.PostgresError, match="append-only"):
        await connection.execute("DELETE FROM ledger.payload")
    await ledger.archive.detach(MONTH, **WHY)
    assert [row["type"] for row in await ledger.archive.history(MONTH)] == [
        "archive.exported", "archive.detached", "archive.attached", "archive.detached",
    ]  # fmt: skip
    with pytest.raises(asyncpg.PostgresError, match="append-only"):
        await connection.execute("DELETE FROM ledger.archive_event")


async def test_what_is_still_needed_is_not_archived(
    ledger: Ledger, connection: asyncpg.Connection, tmp_path: Path
) -> None:
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
    found = await obstacles()
    assert "run_counts has set aside 1 of its runs" in found
    await connection.execute("DELETE FROM ledger.projection_aside")
    assert "1 of its runs have not ended" in found
    assert "ann holds it: case 7" in found
    assert f"bob holds run {run_id} of {PROJECT}: case 8" in found
    assert "run_counts has not passed it" in found
    assert "is not over" in await obstacles(f"{datetime.now(UTC):%Y-%m}")
    assert "no events of it" in await obstacles("1999-01")

    await ledger.cancel(open_.run_id)
    for target in (MONTH, (PROJECT, run_id)):
        await ledger.archive.release(target, actor="ann", reason="closed")
        with pytest.raises(ArchiveRefused, match="nobody holds"):
            await ledger.archive.release(target, actor="ann", reason="closed")
    assert (await ledger.archive.plan(MONTH)).obstacles == (
        "projection run_counts has not passed it (`runfold projections run run_counts --once`)",
    )
    await CatchUp(ledger.pool, RUN_COUNTS).to_the_end()
    assert "is not exported" in await obstacles(detach=True)

    await ledger.archive.export(MONTH, tmp_path, **WHY)
    await ledger.append(run_id, NoteAdded(text="late"))
    assert "events came since it was exported" in await obstacles(detach=True)
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


async def test_a_file_that_is_gone_or_changed_is_named(
    unverified_database: str,
    damaging: asyncpg.Connection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Ledger.open(unverified_database, PROJECT) as ledger:
        async with in_that_month(damaging):
            run_id = await ended(ledger)
        await archived(ledger, tmp_path)
        [month] = [one.archive for one in await ledger.archive.months() if one.archive]
        file = month.path

        moved = tmp_path / "elsewhere"
        moved.mkdir()
        file.rename(moved / file.name)
        with pytest.raises(ArchiveUnusable, match="RUNFOLD_ARCHIVE"):
            await ledger.history(run_id)
        assert [finding.problem for finding in (await ledger.verify()).findings] == ["archive"]
        monkeypatch.setenv("RUNFOLD_ARCHIVE", str(moved))
        assert len(await ledger.history(run_id)) == 5
        assert (await ledger.verify()).ok

        table = parquet.read_table(moved / file.name)
        actors = pa.array(["mallory", *table["actor"].to_pylist()[1:]])
        column = table.schema.get_field_index("actor")
        parquet.write_table(table.set_column(column, "actor", actors), moved / file.name)
        with pytest.raises(ArchiveUnusable, match="not the hash"):
            await ledger.history(run_id)
        with pytest.raises(ArchiveUnusable, match="does not hold"):
            await ledger.state_at(run_id, 3)
        with pytest.raises(ArchiveUnusable, match="SHA-256 differs"):
            await ledger.archive.attach(MONTH, **WHY)
        assert "SHA-256 differs" in (await ledger.verify()).findings[0].detail
        parquet.write_table(table.slice(0, 3), moved / file.name)
        with pytest.raises(ArchiveUnusable, match="up to the hash in run_state"):
            await ledger.history(run_id)
        (moved / file.name).write_bytes(b"nonsense")
        with pytest.raises(ArchiveUnusable, match="cannot be read"):
            await ledger.history(run_id)
        assert await state_of(ledger) == "detached"


async def test_damage_to_what_stayed_is_found_and_a_replay_mends_it(
    unverified_database: str, damaging: asyncpg.Connection, tmp_path: Path
) -> None:
    async with Ledger.open(unverified_database, PROJECT) as ledger:
        async with in_that_month(damaging):
            damaged, removed, intact = [await ended(ledger, key=key) for key in (None, "k", None)]
        await archived(ledger, tmp_path)
        right = [await ledger.get(run_id) for run_id in (damaged, removed, intact)]
        await damaging.execute(
            "UPDATE ledger.run_state SET cost_usd = 99 WHERE run_id = $1", damaged
        )
        await damaging.execute("DELETE FROM ledger.run_state WHERE run_id = $1", removed)

        problems = {finding.run_id: finding.detail for finding in (await ledger.verify()).findings}
        assert "cost_usd" in problems[damaged]
        assert "no row" in problems[removed]
        assert {one.run_id async for one in drift.check(ledger)} == {damaged, removed}
        repaired = await repair(ledger, [damaged, removed, intact], **WHY)
        assert repaired == []

        found = await replay(ledger, **WHY)
        assert found.wrong == 2
        assert [run.cost_usd for run in (await ledger.get(damaged), await ledger.get(removed))] == [
            right[0].cost_usd
        ] * 2
        # The repair is noted in the runs' histories: the month stays in the database until it is
        # exported with the notes.
        assert await state_of(ledger) == "attached"
        assert (await ledger.verify()).ok
        await archived(ledger, tmp_path)
        assert (await ledger.verify()).ok
        assert [event.type for event in await ledger.history(damaged)][-1] == "note.added"

        await damaging.execute("ALTER TABLE ledger.payload DISABLE TRIGGER USER")
        await damaging.execute(
            "UPDATE ledger.payload SET body = '{\"output\": 4}' WHERE run_id = $1 AND version = 5",
            intact,
        )
        [finding] = (await ledger.verify()).findings
        assert (finding.run_id, finding.version, finding.problem) == (intact, 5, "payload")

        await damaging.execute("DELETE FROM ledger.command WHERE run_id = $1", removed)
        found_in = {
            (one.run_id, one.version, one.problem) for one in (await ledger.verify()).findings
        }
        assert found_in == {(intact, 5, "payload"), (removed, 1, "key")}


async def test_replays_and_new_projections_fold_archived_events_too(
    ledger: Ledger, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    async with in_that_month(connection):
        await ended(ledger)
    await ended(ledger)
    await archived(ledger, tmp_path)

    assert (await replay(ledger, **WHY)).progress.rows == 2
    until = await replay_until(ledger, THEN + timedelta(days=1))
    assert await connection.fetchval(f"SELECT count(*) FROM {until.kept_in}") == 1
    assert await state_of(ledger) == "detached"

    await install(ledger.pool, RUN_COUNTS)
    with pytest.raises(FeedArchived, match="rebuild") as caught:
        await CatchUp(ledger.pool, RUN_COUNTS).to_the_end()
    assert caught.value.months == (MONTH,)
    [status] = [one for one in await statuses(ledger.pool, {}) if one.name == RUN_COUNTS.name]
    assert status.state == "behind"
    assert MONTH in str(status.error)
    with pytest.raises(FeedArchived):
        [event async for event in ledger.subscribe(live=False)]
    assert [event async for event in ledger.subscribe(after="now", live=False)] == []

    await refold(ledger.pool, RUN_COUNTS)
    assert await connection.fetchval("SELECT sum(runs) FROM projection.run_counts") == 2
    assert await state_of(ledger) == "detached"
    await ended(ledger)
    assert await CatchUp(ledger.pool, RUN_COUNTS).to_the_end() > 0
    assert await connection.fetchval("SELECT sum(runs) FROM projection.run_counts") == 3


async def test_a_late_write_to_an_archived_run_is_refused_with_the_remedy(
    ledger: Ledger, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    async with in_that_month(connection):
        lease = await claimed(ledger)
        await ledger.transition(lease, State.COMPLETED)
    await archived(ledger, tmp_path)
    before = await ledger.get(lease.run_id)

    with pytest.raises(MissingPartition, match=f"runfold archive attach {MONTH}") as caught:
        await ledger.append(lease.run_id, NoteAdded(text="late"))
    assert (caught.value.run_id, caught.value.month) == (lease.run_id, MONTH)
    assert await ledger.get(lease.run_id) == before


async def test_a_late_worker_of_an_archived_run_has_lost_its_lease_and_its_finished_history_stays(
    ledger: Ledger, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    async with in_that_month(connection):
        lease = await claimed(ledger)
        await ledger.transition(lease, State.COMPLETED)
    await archived(ledger, tmp_path)
    before = await ledger.history(lease.run_id)

    with pytest.raises(LeaseLost):
        await ledger.transition(lease, State.FAILED)
    assert (await ledger.heartbeat([lease]))[0].lost
    assert await ledger.history(lease.run_id) == before


async def test_a_keyed_command_has_its_first_outcome_when_its_month_is_archived(
    ledger: Ledger, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    async with in_that_month(connection):
        lease = await claimed(ledger)
        noted = await ledger.append(lease, NoteAdded(text="x"), key="note")
        [ended_first] = await ledger.transition_many(
            [Transition(lease, State.COMPLETED, key="end")]
        )
    await archived(ledger, tmp_path)

    again = await ledger.append(lease, NoteAdded(text="x"), key="note")
    [ended_again] = await ledger.transition_many([Transition(lease, State.COMPLETED, key="end")])

    assert (again, ended_again) == (noted, ended_first)
    with pytest.raises(DuplicateKey):
        await ledger.append(lease, NoteAdded(text="y"), key="note")


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
        looking = asyncio.run_coroutine_threadsafe(connection.fetchval(HELD), loop)
        held.append(looking.result())
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
    with pytest.raises(ArchiveRefused, match="export it again"):
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


async def test_an_export_that_does_not_check_is_not_recorded(
    unverified_database: str, damaging: asyncpg.Connection, tmp_path: Path
) -> None:
    async with Ledger.open(unverified_database, PROJECT) as ledger:
        async with in_that_month(damaging):
            run_id = await ended(ledger)
        await damaging.execute("ALTER TABLE ledger.payload DISABLE TRIGGER USER")
        await damaging.execute(
            "UPDATE ledger.payload SET body = '{}' WHERE run_id = $1 AND version = 1", run_id
        )

        with pytest.raises(ArchiveUnusable, match="runfold verify"):
            await ledger.archive.export(MONTH, tmp_path, **WHY)
        (tmp_path / "file").write_text("")
        with pytest.raises(ArchiveUnusable, match="cannot be written"):
            await ledger.archive.export(MONTH, tmp_path / "file", **WHY)

        assert await state_of(ledger) == "open"
        assert not os.path.exists(tmp_path / f"event_{MONTH.replace('-', '_')}.parquet")  # noqa: ASYNC240  a look


async def test_readers_read_the_archive_and_only_the_owner_moves_it(
    ledger: Ledger, connection: asyncpg.Connection, database: str, tmp_path: Path
) -> None:
    async with in_that_month(connection):
        run_id = await ended(ledger)
    await archived(ledger, tmp_path)
    before = await ledger.history(run_id)
    report = await ledger.verify()
    # A role as a session's start: every connection of the pool works as it.
    async with asyncpg.create_pool(
        driver_url(database), min_size=1, server_settings={"role": "runfold_auditor"}
    ) as pool:
        reader = Ledger(pool, PROJECT, ledger.settings)
        assert await reader.history(run_id) == before
        assert (await reader.state_at(run_id, 5)).cost_usd == (await ledger.get(run_id)).cost_usd
        assert await verify(pool, PROJECT) == report
        assert [row["type"] for row in await history(pool)] == [
            "archive.exported",
            "archive.detached",
        ]
        with pytest.raises(AccessDenied):
            await attach(pool, MONTH, **WHY)
        with pytest.raises(AccessDenied):
            await hold(pool, MONTH, **WHY)
    assert await state_of(ledger) == "detached"


async def test_without_the_extra_the_error_names_it(
    ledger: Ledger, connection: asyncpg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with in_that_month(connection):
        run_id = await ended(ledger)
    await archived(ledger, tmp_path)
    with monkeypatch.context() as without:
        without.setitem(__import__("sys").modules, "pyarrow", None)
        with pytest.raises(ConfigurationError, match=r"runfold\[archive\]"):
            await ledger.history(run_id)
    assert len(await ledger.history(run_id)) == 5


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


async def test_the_archive_is_reached_from_a_ledger(
    ledger: Ledger, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    async with in_that_month(connection):
        run_id = await ended(ledger)

    await ledger.archive.hold(MONTH, reason="audit")
    assert (await ledger.archive.plan(MONTH)).obstacles
    await ledger.archive.release(MONTH, reason="audit over")
    exported = await ledger.archive.export(MONTH, tmp_path, reason="old")
    detached = await ledger.archive.detach(MONTH, actor="ann")

    assert (exported.month, detached.detached) == (MONTH, True)
    assert len(await ledger.history(run_id)) == 5
    await ledger.archive.attach(MONTH)
    [month] = [each for each in await ledger.archive.months() if each.month == MONTH]
    assert month.state == "attached"
    actors = {record["actor"] for record in await ledger.archive.history(MONTH)}
    assert actors == {"ann", ledger.actor}


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
        "INSERT INTO ledger.archive_event (recorded_at, type, actor, reason, month) "
        "VALUES (ledger.now(), 'hold.placed', 'ann', 'case 9', $1)",
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


async def test_an_export_writes_into_no_file_that_lies_there_already(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "link").symlink_to(victim)

    for taken in (victim, tmp_path / "link"):
        with pytest.raises(FileExistsError):
            Writer(taken)

    assert victim.read_text() == "precious"


async def test_an_export_leaves_what_was_planted_under_its_temporary_name(
    ledger: Ledger, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = tmp_path / "archive"
    folder.mkdir()
    (folder / f"event_{MONTH.replace('-', '_')}.part").symlink_to(victim)
    async with in_that_month(connection):
        await ended(ledger)

    archive = await ledger.archive.export(MONTH, folder, **WHY)

    assert victim.read_text() == "precious"
    assert archive.path.stat().st_mode & 0o777 == 0o600


async def test_a_file_in_which_a_run_lies_twice_does_not_check(
    ledger: Ledger, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    async with in_that_month(connection):
        await ended(ledger)
        await ended(ledger)
    archive = await ledger.archive.export(MONTH, tmp_path, **WHY)
    table = parquet.read_table(archive.path)
    twice = tmp_path / "twice.parquet"
    parquet.write_table(pa.concat_tables([table, table]), twice)

    with pytest.raises(ArchiveUnusable, match="more than one place"):
        check_file(twice)


@pytest.mark.parametrize(
    "hostile",
    [
        {"nothing": [1]},
        {"project_id": [None], "run_id": [None]},
        {"project_id": [7], "run_id": [7]},
        {"project_id": ["p"], "run_id": ["no id"]},
        {"project_id": ["p"], "run_id": [str(UUID(int=1))]},
        {"project_id": ["p"], "run_id": [str(UUID(int=1))], "version": ["x"], "hash": [1]},
    ],
)
async def test_a_hostile_file_is_named_and_never_a_crash(
    tmp_path: Path, hostile: dict[str, list[Any]]
) -> None:
    path = tmp_path / "hostile.parquet"
    parquet.write_table(pa.table(hostile), path)

    with pytest.raises(ArchiveUnusable, match=r"hostile\.parquet"):
        check_file(path)


async def test_a_file_without_statistics_is_checked_as_a_whole(
    ledger: Ledger, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    async with in_that_month(connection):
        await ended(ledger)
    archive = await ledger.archive.export(MONTH, tmp_path, **WHY)
    plain = tmp_path / "plain.parquet"
    parquet.write_table(parquet.read_table(archive.path), plain, write_statistics=False)

    assert check_file(plain).events == check_file(archive.path).events


def forged_copy(path: Path) -> Path:
    """Write a file of the same form in which every lease names another worker."""
    table = parquet.read_table(path)
    forged = path.with_suffix(".forged")
    workers = pa.array(["w:forged"] * table.num_rows, pa.string())
    place = table.schema.get_field_index("worker_id")
    parquet.write_table(table.set_column(place, "worker_id", workers), forged)
    return forged


def changed_after_its_check(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]) -> None:
    """Change a file as soon as its digest has been taken."""
    digest = hashlib.file_digest

    def taken(source: Any, name: Any) -> Any:
        found = digest(source, name)
        change()
        return found

    monkeypatch.setattr("runfold.ledger.archive.file.file_digest", taken)


async def test_a_file_that_is_replaced_after_its_check_is_not_what_is_attached(
    ledger: Ledger, connection: asyncpg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with in_that_month(connection):
        await ended(ledger)
    before = await rows(connection, "event")
    archive = await ledger.archive.export(MONTH, tmp_path, **WHY)
    await ledger.archive.detach(MONTH, **WHY)
    forged = forged_copy(archive.path)

    def replace() -> None:
        if forged.exists():
            forged.replace(archive.path)

    changed_after_its_check(monkeypatch, replace)
    await ledger.archive.attach(MONTH, **WHY)

    assert not forged.exists()
    assert await rows(connection, "event") == before


async def test_a_file_that_is_written_to_after_its_check_is_refused(
    ledger: Ledger, connection: asyncpg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with in_that_month(connection):
        await ended(ledger)
    archive = await ledger.archive.export(MONTH, tmp_path, **WHY)
    await ledger.archive.detach(MONTH, **WHY)
    whole, forged = archive.path.read_bytes(), forged_copy(archive.path).read_bytes()

    with monkeypatch.context() as patching:
        changed_after_its_check(patching, lambda: archive.path.write_bytes(forged))
        with pytest.raises(ArchiveUnusable, match="not the file that was recorded"):
            await ledger.archive.attach(MONTH, **WHY)

    assert await state_of(ledger) == "detached"
    archive.path.write_bytes(whole)


async def test_the_digest_of_an_export_is_of_the_file_that_was_checked(
    ledger: Ledger, connection: asyncpg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with in_that_month(connection):
        await ended(ledger)
    whole: list[bytes] = []

    def checked(source: Any) -> Any:
        chain = check_file(source)
        [written] = tmp_path.iterdir()
        whole.append(written.read_bytes())
        forged_copy(written).replace(written)
        return chain

    monkeypatch.setattr(exporting, "check_file", checked)
    archive = await ledger.archive.export(MONTH, tmp_path, **WHY)

    with pytest.raises(ArchiveUnusable, match="not the file that was recorded"):
        archive.check_digest()
    archive.path.write_bytes(whole[0])
