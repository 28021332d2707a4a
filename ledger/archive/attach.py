"""Attach: bring a detached month back from its file, for good or for the time of a rebuild."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from typing import Any, Final

import asyncpg

from runfold.ledger import log, names
from runfold.ledger.archive.detach import detach_on
from runfold.ledger.archive.file import EVENT, pages
from runfold.ledger.archive.record import (
    Archive,
    archive_of,
    archives,
    detached,
    record_archive,
)
from runfold.ledger.archive.request import ARCHIVE, alone, check_request
from runfold.ledger.errors import ArchiveRefused, ArchiveUnusable
from runfold.ledger.months import start_of, table_of
from runfold.ledger.postgres.at_work import at_work
from runfold.ledger.postgres.connections import Pool

FOR_A_REBUILD: Final = "for the time of a rebuild"
"""The reason that `attached` records, by which it recognises its own records."""
_REBUILD: Final = "rebuild"
_NAMES: Final = tuple(name for name, _ in EVENT)
_PAYLOAD: Final = ("project_id", "run_id", "version", "salt", "body")


async def attach(pool: Pool, month: str, *, actor: str, reason: str | None = None) -> Archive:
    """Bring a detached month back from its file, every event and payload as it was.

    Raises ArchiveRefused, ArchiveUnusable, InvalidValue or AccessDenied.
    """
    check_request(month, actor, reason)
    async with alone(pool, month) as connection:
        archive = await archive_of(connection, month)
        if archive is None or not archive.detached:
            raise ArchiveRefused(month, ["the month is not detached"])
        return await _attach(connection, archive, actor, reason)


@asynccontextmanager
async def attached(pool: Pool) -> AsyncIterator[None]:
    """Attach every detached month while the block lasts, then detach them again.

    Raises ArchiveUnusable, or AccessDenied unless the owner calls it or no month is detached.
    """
    async with pool.acquire() as connection:
        try:
            async with at_work(connection, ARCHIVE, shared=True, wait_seconds=None):
                for archive in await detached(connection):
                    await _attach(connection, archive, _REBUILD, FOR_A_REBUILD)
                yield
        finally:
            await _give_back(connection)


async def _attach(connection: Any, archive: Archive, actor: str, reason: str | None) -> Archive:
    """Attach on a connection that holds the archive's lock, unless another rebuild has done it."""
    async with connection.transaction():
        await connection.execute("LOCK TABLE ledger.archive_event IN SHARE ROW EXCLUSIVE MODE")
        now = await archive_of(connection, archive.month)
        if now is None or not now.detached:
            return now or archive
        await _copy(connection, now)
        await connection.execute(
            "SELECT ledger.attach_partition($1)", start_of(now.month).replace(tzinfo=None)
        )
        return await record_archive(
            connection, "archive.attached", now.month, asdict(now), actor=actor, reason=reason
        )


async def _copy(connection: Any, archive: Archive) -> None:
    """Make the month's table, not yet a partition, and fill it and `payload` from the file."""
    table = table_of(archive.month)
    await connection.execute(
        f"CREATE TABLE ledger.{table} (LIKE ledger.event INCLUDING DEFAULTS INCLUDING CONSTRAINTS)"
    )
    await connection.execute(
        "CREATE TEMP TABLE archived_payload (LIKE ledger.payload) ON COMMIT DROP"
    )
    reading = _recorded(archive)
    while (page := await asyncio.to_thread(next, reading, None)) is not None:
        await connection.copy_records_to_table(
            table,
            schema_name="ledger",
            columns=_NAMES,
            records=[[row[name] for name in _NAMES] for row in page],
        )
        await connection.copy_records_to_table(
            "archived_payload",
            columns=_PAYLOAD,
            records=[[row[name] for name in _PAYLOAD] for row in page if row["body"] is not None],
        )
    await connection.execute(
        "INSERT INTO ledger.payload SELECT * FROM archived_payload ON CONFLICT DO NOTHING"
    )


def _recorded(archive: Archive) -> Iterator[list[Any]]:
    """Yield the rows of the file that was recorded. Raises ArchiveUnusable."""
    with archive.opened() as file:
        yield from pages(file)


async def _give_back(connection: Any) -> None:
    """Detach what rebuilds brought back, unless another rebuild is running: then that one will."""
    with suppress(asyncpg.LockNotAvailableError, asyncpg.InsufficientPrivilegeError):
        async with at_work(connection, ARCHIVE):
            await _detach_own(connection)


async def _detach_own(connection: Any) -> None:
    for archive in await archives(connection):
        mine = (archive.actor, archive.reason) == (_REBUILD, FOR_A_REBUILD)
        if archive.detached or not mine:
            continue
        try:
            await detach_on(connection, archive.month, _REBUILD, FOR_A_REBUILD)
        except (ArchiveRefused, ArchiveUnusable) as error:
            log.logger().warning(names.ARCHIVE_STAYS, month=archive.month, error=str(error))
