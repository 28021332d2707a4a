"""Archived months are checked against their files: what stayed, and what was recorded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from runfold.ledger import Ledger
from runfold.ledger.archive.record import archives
from runfold.ledger.postgres.urls import driver_url
from runfold.ledger.reading import verify
from tests.support.archiving import WHY, archived, ended
from tests.support.damage import keep, undone
from tests.support.databases import PROJECT
from tests.support.past_month import MONTH, in_that_month


@pytest.fixture
async def ledger(unverified_database: str) -> AsyncIterator[Ledger]:
    """The ledger of a database that the test damages."""
    async with Ledger.open(unverified_database, PROJECT) as opened:
        yield opened


@pytest.fixture
async def mallory(unverified_database: str) -> AsyncIterator[asyncpg.Connection]:
    """A superuser."""
    opened = await asyncpg.connect(driver_url(unverified_database))
    yield opened
    await opened.close()


async def tamper(mallory: asyncpg.Connection, statement: str, *args: object) -> None:
    """Do it while no trigger fires."""
    for table in ("ledger.payload", "ledger.archive_event"):
        await mallory.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
    await mallory.execute(statement, *args)


async def problems(ledger: Ledger) -> list[str]:
    """What verify finds, in words."""
    return [finding.detail for finding in (await ledger.verify()).findings]


@pytest.mark.parametrize("version", [1, 5])
async def test_an_input_or_outcome_that_did_not_stay_is_found(
    ledger: Ledger, mallory: asyncpg.Connection, tmp_path: Path, version: int
) -> None:
    async with in_that_month(mallory):
        run_id = await ended(ledger)
    await archived(ledger, tmp_path)
    assert await problems(ledger) == []

    await tamper(mallory, "DELETE FROM ledger.payload WHERE version = $1", version)

    [finding] = (await ledger.verify()).findings
    assert (finding.run_id, finding.version, finding.problem) == (run_id, version, "payload")
    assert "should have stayed" in finding.detail


async def test_a_key_that_names_no_event_of_an_archived_month_is_found(
    ledger: Ledger, mallory: asyncpg.Connection, tmp_path: Path
) -> None:
    async with in_that_month(mallory):
        await ended(ledger, key="k")
    await archived(ledger, tmp_path)
    assert await problems(ledger) == []

    await mallory.execute(
        "INSERT INTO ledger.command SELECT project_id, 'forged', content_hash, run_id, 2 "
        "FROM ledger.command"
    )

    assert await problems(ledger) == [f"{MONTH}: 1 idempotency keys name no event of it"]


CHANGES = {
    "runs = 7": "recorded runs is 7, of the file 1",
    "events = events + 1": "recorded events is 6, of the file 5",
    "payloads = 0": "recorded payloads is 0, of the file 3",
    "last_position = 1": "recorded last_position is 1, of the file",
    "beyond = first": "recorded beyond is",
    "sha256 = sha256('')": "its size or SHA-256 differs",
    "size_bytes = 1": "its size or SHA-256 differs",
}


@pytest.mark.parametrize("is_detached", [True, False])
async def test_a_record_that_is_not_of_its_file_is_found(
    ledger: Ledger,
    mallory: asyncpg.Connection,
    tmp_path: Path,
    subtests: pytest.Subtests,
    *,
    is_detached: bool,
) -> None:
    async with in_that_month(mallory):
        await ended(ledger)
    await ledger.archive.export(MONTH, tmp_path, **WHY)
    if is_detached:
        await ledger.archive.detach(MONTH, **WHY)
    await keep(mallory, ["archive_event"])

    for change, expected in CHANGES.items():
        assert await problems(ledger) == []
        with subtests.test(change):
            async with undone(mallory, ["archive_event"]):
                await tamper(mallory, f"UPDATE ledger.archive_event SET {change}")
                found = await problems(ledger)
            assert any(expected in one for one in found), found


async def test_an_exported_file_that_is_gone_is_found(
    ledger: Ledger, mallory: asyncpg.Connection, tmp_path: Path
) -> None:
    async with in_that_month(mallory):
        await ended(ledger)
    archive = await ledger.archive.export(MONTH, tmp_path, **WHY)

    archive.path.unlink()

    [problem] = await problems(ledger)
    assert "cannot be read" in problem


async def test_every_archived_run_is_counted_once(
    ledger: Ledger, mallory: asyncpg.Connection, tmp_path: Path
) -> None:
    async with in_that_month(mallory):
        await ended(ledger)
        await ended(ledger)
    await archived(ledger, tmp_path)

    report = await ledger.verify()

    assert (report.runs, report.events, report.payloads, report.ok) == (2, 10, 6, True)


async def test_a_file_on_both_sides_of_where_a_range_is_halved_is_checked_once(
    ledger: Ledger, mallory: asyncpg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with in_that_month(mallory):
        await ended(ledger)
    torn = await ended(ledger)
    await archived(ledger, tmp_path)
    [month] = await archives(ledger.pool)
    await mallory.execute(f"""
      CREATE FUNCTION public.torn() RETURNS json LANGUAGE plpgsql AS $$ BEGIN
        RAISE EXCEPTION 'invalid page in block 7' USING ERRCODE = 'XX001';
      END $$;
      ALTER TABLE ledger.payload RENAME TO true_payload;
      CREATE VIEW ledger.payload AS SELECT project_id, run_id, version, salt,
        CASE run_id WHEN '{torn}' THEN public.torn() ELSE body END AS body
      FROM ledger.true_payload""")
    middle = month.first.int + 2**90  # a second after the month's first moment

    async def halved_there(*_: object) -> AsyncIterator[tuple[UUID, UUID]]:
        yield UUID(int=2 * middle - torn.int), torn

    monkeypatch.setattr(verify, "ranges", halved_there)

    report = await ledger.verify()

    assert {finding.problem for finding in report.findings} == {"unreadable"}
    assert (report.runs, report.events) == (1, 5)
