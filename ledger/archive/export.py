"""Export: write a month to a file, read it back, check every hash, and record it.

Why files, what stays in the database and how it is read: docs/decisions/0018. Only the owner of
the schema may do it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Any, Final

from runfold.ledger.archive.file import ROWS_A_GROUP, Writer, check_file, digest, put_in_place
from runfold.ledger.archive.obstacles import obstacles
from runfold.ledger.archive.record import Archive, record_archive
from runfold.ledger.archive.request import alone, check_request
from runfold.ledger.errors import ArchiveRefused, ArchiveUnusable
from runfold.ledger.months import bounds, table_of
from runfold.ledger.postgres.connections import Pool

_ENTRIES: Final = """
SELECT e.*, p.salt, p.body FROM ledger.event AS e
LEFT JOIN ledger.payload AS p
  ON p.project_id = e.project_id AND p.run_id = e.run_id AND p.version = e.version
WHERE e.run_id >= $1 AND e.run_id < $2 ORDER BY e.project_id, e.run_id, e.version
"""


async def export(
    pool: Pool, month: str, folder: Path, *, actor: str, reason: str | None = None
) -> Archive:
    """Write a month to a file in `folder`, read it back, check every hash, and record it.

    Raises ArchiveRefused when the month is still needed, ArchiveUnusable when the file does not
    check or cannot be written, InvalidValue or AccessDenied.
    """
    check_request(month, actor, reason)
    path = await asyncio.to_thread(folder.resolve) / f"{table_of(month)}.parquet"
    async with alone(pool, month) as connection:
        written = path.with_name(f"{path.stem}.{token_hex(8)}.part")
        try:
            facts = await _exported(connection, month, written)
            await asyncio.to_thread(put_in_place, written, path)
        except OSError as error:
            raise ArchiveUnusable(str(written), f"cannot be written ({error.strerror})") from error
        finally:
            with suppress(OSError):
                await asyncio.to_thread(written.unlink, missing_ok=True)
        file = {**facts, "file": str(path)}
        return await record_archive(
            connection, "archive.exported", month, file, actor=actor, reason=reason
        )


async def _exported(connection: Any, month: str, path: Path) -> dict[str, Any]:
    """Write the file, check what can be read back from it, and return the facts to record."""
    # The lock keeps the partition where it is; one snapshot for all that is read.
    async with connection.transaction(isolation="repeatable_read"):
        await connection.execute("LOCK TABLE ledger.event IN ACCESS SHARE MODE")
        in_the_way, newest = await obstacles(connection, month, detaching=False)
        if in_the_way or newest is None:
            raise ArchiveRefused(month, in_the_way)
        await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
        payloads = await _write(connection, month, path)
    return await asyncio.to_thread(_facts, month, path, newest, payloads)


async def _write(connection: Any, month: str, path: Path) -> int:
    payloads = 0
    with Writer(path) as file:
        cursor = await connection.cursor(_ENTRIES, *bounds(month))
        while rows := await cursor.fetch(ROWS_A_GROUP):
            payloads += sum(row["body"] is not None for row in rows)
            await asyncio.to_thread(file.add, rows)
    return payloads


def _facts(month: str, path: Path, newest: Mapping[str, Any], payloads: int) -> dict[str, Any]:
    chain = check_file(path)
    if chain.findings or chain.events != newest["events"] or chain.payloads != payloads:
        problem = (
            chain.findings[0].detail
            if chain.findings
            else f"has {chain.events} events of {newest['events']}"
        )
        raise ArchiveUnusable(str(path), f"does not check: {problem}; run `runfold verify`")
    size, sha256 = digest(path)
    return {
        **dict(zip(("first", "beyond"), bounds(month), strict=True)),
        "runs": chain.runs,
        "events": chain.events,
        "payloads": payloads,
        "size_bytes": size,
        "sha256": sha256,
        **{name: newest[name] for name in ("generation", "last_position", "last_txid")},
    }
