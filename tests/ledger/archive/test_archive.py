"""The archive: a month in a file is read, proved and replayed as before."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pyarrow as pa
import pytest
from pyarrow import parquet

from runfold.console.web.evidence import export
from runfold.ledger import Ledger, State, Transition
from runfold.ledger.archive import reading
from runfold.ledger.archive.attach import attach
from runfold.ledger.archive.file import check_file
from runfold.ledger.archive.holds import hold
from runfold.ledger.archive.record import Archive, detached, history
from runfold.ledger.errors import (
    AccessDenied,
    ArchiveUnusable,
    CheckpointUnknown,
    ConfigurationError,
    DecisionRefused,
    DuplicateKey,
    FeedArchived,
    IllegalTransition,
    LeaseLost,
    MissingPartition,
)
from runfold.ledger.events import NoteAdded
from runfold.ledger.months import bounds
from runfold.ledger.postgres.urls import driver_url
from runfold.ledger.reading import feed, past
from runfold.ledger.reading.verify import verify
from runfold.projections.declared.catch_up import CatchUp
from runfold.projections.declared.installing import install
from runfold.projections.declared.refold import refold
from runfold.projections.declared.status import statuses
from runfold.projections.models.counts import RUN_COUNTS
from runfold.projections.state import drift
from runfold.projections.state.repair import repair
from runfold.projections.state.replay import replay, replay_until
from runfold.projections.telemetry.metrics import look
from tests.support.archiving import WHY, archived, damaging, ended, rows, state_of
from tests.support.databases import PROJECT
from tests.support.past_month import MONTH, THEN, in_that_month
from tests.support.runs import claimed

__all__ = ["damaging"]


async def signed(ledger: Ledger) -> UUID:
    """Bring a run that two persons approved to its end."""
    lease = await claimed(ledger)
    content = {"prompt": "Pay?", "approvals": 2}
    asked = await ledger.transition(lease, State.WAITING_APPROVAL, content=content)
    for name in ("ann", "bob"):
        await ledger.approve(asked, actor=name)
    await ledger.transition(lease, State.COMPLETED)
    return lease.run_id


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


async def test_what_is_attached_while_it_is_looked_for_is_found(
    ledger: Ledger, connection: asyncpg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rebuild attaches every month for its time: nobody reads an empty history meanwhile."""
    async with in_that_month(connection):
        run_id = await ended(ledger)
    before = await ledger.history(run_id)
    await ledger.archive.export(MONTH, tmp_path, **WHY)

    async def attached_meanwhile(*asked: Any) -> list[Archive]:
        if (await ledger.archive.months())[0].state == "detached":
            await ledger.archive.attach(MONTH, **WHY)
        return await detached(*asked)

    monkeypatch.setattr(reading, "detached", attached_meanwhile)
    await ledger.archive.detach(MONTH, **WHY)
    assert await ledger.history(run_id) == before
    await ledger.archive.detach(MONTH, **WHY)
    assert (await ledger.state_at(run_id, 1)).state == State.PENDING
    await ledger.archive.detach(MONTH, **WHY)
    assert (await export(ledger, [run_id], tmp_path / "bundle"))["runs"][0]["events"] == len(before)


async def test_the_runs_of_an_instant_are_listed_once_while_their_month_is_moved(
    ledger: Ledger, connection: asyncpg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with in_that_month(connection):
        run_id = await ended(ledger)
    await ledger.archive.export(MONTH, tmp_path, **WHY)
    moves: list[Any] = []

    async def moved_meanwhile(*asked: Any) -> list[Archive]:
        while moves:
            await moves.pop()(MONTH, **WHY)
        return await detached(*asked)

    monkeypatch.setattr(past, "detached", moved_meanwhile)
    for move in (ledger.archive.detach, ledger.archive.attach):
        moves.append(move)
        listed = await ledger.runs(at=datetime.now(UTC) - timedelta(seconds=1))
        assert [run.run_id for run in listed] == [run_id]


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

        findings = (await ledger.verify()).findings
        problems = {finding.run_id: finding.detail for finding in reversed(findings)}  # the first
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
    assert status.state == "failed"
    assert [row["failed"] for row in (await look(ledger.pool))["projections"]] == [True]
    assert MONTH in str(status.error)
    with pytest.raises(FeedArchived):
        [event async for event in ledger.subscribe(live=False)]
    assert [event async for event in ledger.subscribe(after="now", live=False)] == []

    await refold(ledger.pool, RUN_COUNTS)
    assert await connection.fetchval("SELECT sum(runs) FROM projection.run_counts") == 2
    assert await state_of(ledger) == "detached"
    await ended(ledger)
    assert await CatchUp(ledger.pool, RUN_COUNTS).to_the_end() == 3
    assert await connection.fetchval("SELECT sum(runs) FROM projection.run_counts") == 3
    await refuses_another_history(ledger)


async def refuses_another_history(ledger: Ledger) -> None:
    """Fail unless the feed refuses a checkpoint whose newest event is another than its own."""
    known = await feed.now(ledger.pool)
    with pytest.raises(CheckpointUnknown):
        await feed.towards(ledger.pool, replace(known, moment=f"{known.moment[:-16]}{0:016}"), 10)


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


async def test_a_parent_that_there_never_was_hides_nobody_though_a_month_is_archived(
    ledger: Ledger, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    async with in_that_month(connection):
        await ended(ledger)
    await archived(ledger, tmp_path)
    never = UUID(int=(await ended(ledger)).int ^ 1)
    lease = await claimed(ledger, parent=never, actor="w:0")
    asked = await ledger.ask_approval(lease, "Pay?", other_person=True)

    assert (await ledger.approve(asked, actor="zoe")).version == asked.version + 1


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
    await ledger.archive.hold(MONTH, reason="audit again")
    assert await connection.fetchval("SELECT detached FROM ledger.archive")
    await ledger.archive.release(MONTH, reason="over again")
    await ledger.archive.attach(MONTH)
    await refuses_another_history(ledger)
    [month] = [each for each in await ledger.archive.months() if each.month == MONTH]
    assert month.state == "attached"
    actors = {record["actor"] for record in await ledger.archive.history(MONTH)}
    assert actors == {"ann", ledger.actor}
