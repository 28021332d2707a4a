"""What brings archived months back waits for others and for files, and not without end."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import asyncpg
import pytest
from structlog.testing import capture_logs

from runfold.ledger import Ledger, names
from runfold.ledger.archive import attach, detach, watched
from runfold.ledger.archive.request import ARCHIVE
from runfold.ledger.errors import ArchiveUnusable, LockTimeout
from runfold.ledger.months import table_of
from runfold.ledger.postgres import locks
from runfold.ledger.postgres.at_work import at_work
from runfold.projections.declared.installing import install
from runfold.projections.declared.refold import refold
from runfold.projections.models.counts import RUN_COUNTS
from runfold.projections.state.drift import check
from runfold.projections.state.replay import replay
from tests.support.archiving import WHY, archived, ended, state_of
from tests.support.past_month import MONTH, in_that_month


@pytest.fixture
async def detached(
    ledger: Ledger, connection: asyncpg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A month whose events are in a file only; short waits."""
    monkeypatch.setattr(attach, "WAIT_SECONDS", 0.3)
    monkeypatch.setattr(watched, "STILL_SECONDS", 0.3)
    async with in_that_month(connection):
        await ended(ledger)
    await archived(ledger, tmp_path)
    await install(ledger.pool, RUN_COUNTS)
    return tmp_path / f"{table_of(MONTH)}.parquet"


async def test_a_rebuild_names_the_command_and_the_session_that_it_waited_for(
    ledger: Ledger,
    connection: asyncpg.Connection,
    detached: Path,
    monkeypatch: pytest.MonkeyPatch,
    subtests: pytest.Subtests,
) -> None:
    monkeypatch.setattr(attach, "lock_limit", lambda _="": "SET LOCAL lock_timeout = '50ms'")
    holder = f"process {connection.get_server_pid()}, login postgres"

    @asynccontextmanager
    async def records_locked() -> AsyncIterator[None]:
        async with connection.transaction():
            await connection.execute("LOCK TABLE ledger.archive_event IN ROW EXCLUSIVE MODE")
            yield

    for what, held in (
        ("the archive", at_work(connection, ARCHIVE)),
        ("the records of archives", records_locked()),
    ):
        with subtests.test(what):
            async with held:
                for rebuild in (refold(ledger.pool, RUN_COUNTS), replay(ledger, **WHY)):
                    with capture_logs() as lines, pytest.raises(LockTimeout) as refused:
                        await rebuild
                    assert str(refused.value).startswith(
                        f"{what} stayed locked for 0.3s, by {holder}"
                    )
                    [line] = [line for line in lines if line["event"] == names.ARCHIVE_AWAITED]
                    assert line["what"] == what
                    assert line["holder"].startswith(holder)
            assert await state_of(ledger) == "detached"
    assert (await replay(ledger, **WHY)).wrong == 0


async def test_a_rebuild_that_cannot_detach_again_has_succeeded_and_says_so(
    ledger: Ledger, connection: asyncpg.Connection, detached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detach, "lock_limit", lambda: "SET LOCAL lock_timeout = '20ms'")
    monkeypatch.setattr(locks, "FIRST_PAUSE_SECONDS", 0.01)
    async with connection.transaction():
        await connection.fetch("SELECT FROM ledger.event LIMIT 1")
        with capture_logs() as lines:
            done = await refold(ledger.pool, RUN_COUNTS)
    assert done.kept_in is not None
    [line] = [line for line in lines if line["event"] == names.ARCHIVE_STAYS]
    assert line["month"] == MONTH
    assert "the event table stayed locked" in line["error"]
    assert await state_of(ledger) == "attached"

    await refold(ledger.pool, RUN_COUNTS)
    assert await state_of(ledger) == "detached"


@contextmanager
def hanging(file: Path) -> Iterator[None]:
    """Have whoever opens the file wait, as in a folder of a server that is gone."""
    whole = file.read_bytes()
    file.unlink()
    os.mkfifo(file)
    try:
        yield
    finally:
        # Those that were left behind go on: they read nothing.
        os.close(os.open(file, os.O_RDWR | os.O_NONBLOCK))
        file.unlink()
        file.write_bytes(whole)


async def test_a_file_that_cannot_be_read_any_further_is_named(
    ledger: Ledger, detached: Path
) -> None:
    problem = f"{detached} could not be read any further for 0.3 s"
    with hanging(detached):
        for rebuild in (
            refold(ledger.pool, RUN_COUNTS),
            replay(ledger, **WHY),
            ledger.archive.attach(MONTH, **WHY),
        ):
            with pytest.raises(ArchiveUnusable, match=problem):
                await rebuild
        with pytest.raises(ArchiveUnusable, match=problem):
            [_ async for _ in check(ledger)]
        report = await ledger.verify()
        assert problem in str(report.findings)

    assert (await ledger.verify()).ok
    await refold(ledger.pool, RUN_COUNTS)
