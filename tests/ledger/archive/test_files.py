"""The file of an archived month: written once, and checked before it is believed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pyarrow as pa
import pytest
from pyarrow import parquet

from runfold.ledger import Ledger
from runfold.ledger.archive import export as exporting
from runfold.ledger.archive.file import Writer, check_file, digest
from runfold.ledger.errors import (
    ArchiveRefused,
    ArchiveUnusable,
)
from runfold.ledger.events import NoteAdded
from tests.support.archiving import WHY, damaging, ended, rows, state_of
from tests.support.databases import PROJECT
from tests.support.past_month import MONTH, in_that_month

__all__ = ["damaging"]


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
        with pytest.raises(ArchiveUnusable, match=r"cannot be written.*name a folder.*--to"):
            await ledger.archive.export(MONTH, tmp_path / "file", **WHY)

        assert await state_of(ledger) == "open"
        assert not os.path.exists(tmp_path / f"event_{MONTH.replace('-', '_')}.parquet")  # noqa: ASYNC240  a look


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


async def test_an_export_replaces_no_other_file_of_its_name(
    ledger: Ledger, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    async with in_that_month(connection):
        run = await ended(ledger)
    path = tmp_path / f"event_{MONTH.replace('-', '_')}.parquet"
    path.write_text("the only copy")
    with pytest.raises(ArchiveRefused, match=r"another file is at .* of another ledger: move it"):
        await ledger.archive.export(MONTH, tmp_path, **WHY)
    assert path.read_text() == "the only copy"
    path.unlink()

    first = await ledger.archive.export(MONTH, tmp_path, **WHY)
    assert (await ledger.archive.export(MONTH, tmp_path, **WHY)).sha256 == first.sha256
    await ledger.append(run, NoteAdded(name="late", text="note"))
    assert (await ledger.archive.export(MONTH, tmp_path, **WHY)).events == first.events + 1
    aside = path.with_name(f"{path.stem}.{first.sha256.hex()[:16]}.parquet")
    replace(first, file=str(aside)).check_digest()


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


async def test_a_file_with_a_column_that_no_export_writes_does_not_check(
    ledger: Ledger, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    async with in_that_month(connection):
        await ended(ledger)
    archive = await ledger.archive.export(MONTH, tmp_path, **WHY)
    table = parquet.read_table(archive.path)
    for name in ("reason", "actor"):
        more = table.append_column(name, pa.array(["mallory"] * len(table)))
        parquet.write_table(more, tmp_path / name)

        with pytest.raises(ArchiveUnusable, match=f"a column '{name}' that no export writes"):
            check_file(tmp_path / name)


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

    def taken(*file: Any) -> tuple[int, bytes]:
        found = digest(*file)
        change()
        return found

    monkeypatch.setattr("runfold.ledger.archive.record.digest", taken)


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
