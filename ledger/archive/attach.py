"""Attach: bring a detached month back from its file, for good or for the time of a rebuild."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict
from typing import Any, Final

import asyncpg

from runfold.ledger import log, names
from runfold.ledger.archive.detach import detach_on
from runfold.ledger.archive.file import EVENT, pages
from runfold.ledger.archive.record import (
    LOCK_ALL,
    Archive,
    archive_of,
    archives,
    detached,
    record_archive,
)
from runfold.ledger.archive.request import ARCHIVE, alone, check_request
from runfold.ledger.archive.watched import OnStep, Watched
from runfold.ledger.errors import ArchiveRefused, ArchiveUnusable, LockTimeout
from runfold.ledger.months import start_of, table_of
from runfold.ledger.postgres.at_work import at_work
from runfold.ledger.postgres.connections import FAILURES, Pool
from runfold.ledger.postgres.errors import sentence, translated
from runfold.ledger.postgres.locks import lock_limit

WAIT_SECONDS: Final = 600.0
"""How long a rebuild waits for a command of the archive, and for another's copy of a month."""
FOR_A_REBUILD: Final = "for the time of a rebuild"
"""The reason that `attached` records, by which it recognises its own records."""
_REBUILD: Final = "rebuild"
_HOLDERS: Final = "SELECT ledger.holders('ledger.archive_event', NULL)"
_PAUSE_SECONDS: Final = 0.1
_NAMES: Final = tuple(name for name, _ in EVENT)
_PAYLOAD: Final = ("project_id", "run_id", "version", "salt", "body")


async def attach(pool: Pool, month: str, *, actor: str, reason: str | None = None) -> Archive:
    """Bring a detached month back from its file, every event and payload as it was.

    Raises ArchiveRefused, ArchiveUnusable, InvalidValue or AccessDenied.
    """
    why = check_request(month, actor, reason)
    async with alone(pool, month) as connection:
        archive = await archive_of(connection, month)
        if archive is None or not archive.detached:
            raise ArchiveRefused(month, ["the month is not detached"])
        return await _attach(connection, archive, actor, why)


@asynccontextmanager
async def attached(pool: Pool) -> AsyncIterator[None]:
    """Attach every detached month while the block lasts, then detach them again.

    Raises ArchiveUnusable, LockTimeout, or AccessDenied unless the owner calls it or no month is
    detached.
    """
    try:
        async with pool.acquire() as connection:
            try:
                async with AsyncExitStack() as work:
                    await _share_work(connection, work)
                    for archive in await detached(connection):
                        await _attach(connection, archive, _REBUILD, FOR_A_REBUILD)
                    yield
            finally:
                await _give_back(connection)
    except (*FAILURES, OSError) as error:
        raise translated(error) from error


async def _await_lock(
    what: str,
    take: Callable[[], Awaitable[object]],
    holder_of: Callable[[Exception], Awaitable[str]],
) -> None:
    """Take a lock as soon as others leave it. Raises LockTimeout, which names who has it."""
    began, is_known = time.monotonic(), False
    while True:
        try:
            await take()
        except asyncpg.LockNotAvailableError as error:
            holder = await holder_of(error)
            if time.monotonic() - began >= WAIT_SECONDS:
                raise LockTimeout(1, f"{WAIT_SECONDS:g}s", what, holder) from error
            if not is_known:
                log.logger().warning(
                    names.ARCHIVE_AWAITED, what=what, holder=holder, seconds=WAIT_SECONDS
                )
            is_known = True
            await asyncio.sleep(_PAUSE_SECONDS)
        else:
            return


async def _share_work(connection: Any, work: AsyncExitStack) -> None:
    """Be at work on the archive together with other rebuilds. Raises LockTimeout."""

    async def begin() -> None:
        await work.enter_async_context(at_work(connection, ARCHIVE, shared=True))

    async def holder_of(error: Exception) -> str:
        return sentence(error).removesuffix(f" is at work on {ARCHIVE}")

    await _await_lock("the archive", begin, holder_of)


async def _lock_records(connection: Any) -> None:
    """Lock the records of archives until the transaction's end. Raises LockTimeout."""

    async def lock() -> None:
        async with connection.transaction():
            await connection.execute(lock_limit())
            await connection.execute(LOCK_ALL)

    async def holder_of(_: Exception) -> str:
        return str(await connection.fetchval(_HOLDERS))

    await _await_lock("the records of archives", lock, holder_of)


async def _attach(connection: Any, archive: Archive, actor: str, reason: str | None) -> Archive:
    """Attach on a connection that holds the archive's lock, unless another rebuild has done it."""
    async with connection.transaction():
        await _lock_records(connection)
        now = await archive_of(connection, archive.month)
        if now is None or not now.detached:
            return now or archive
        await _copy(connection, now)
        # Whoever waits behind this lock changes a table or cleans it up: it may take its time.
        await connection.execute(lock_limit(f"{WAIT_SECONDS:g}s"))
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
    watched = Watched(archive.path)
    reading = _recorded(archive, watched.step)
    while (page := await watched.call(next, reading, None)) is not None:
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


def _recorded(archive: Archive, on_step: OnStep) -> Iterator[list[Any]]:
    """Yield the rows of the file that was recorded. Raises ArchiveUnusable."""
    with archive.opened(on_step) as file:
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
        except (ArchiveRefused, ArchiveUnusable, LockTimeout) as error:
            log.logger().warning(names.ARCHIVE_STAYS, month=archive.month, error=str(error))
