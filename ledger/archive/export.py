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

from runfold.ledger.archive.file import (
    ROWS_A_GROUP,
    Writer,
    check_file,
    digest,
    opened,
    put_in_place,
)
from runfold.ledger.archive.obstacles import held, obstacles
from runfold.ledger.archive.record import LOCK_ALL, Archive, archive_of, record_archive
from runfold.ledger.archive.request import alone, check_request
from runfold.ledger.errors import ArchiveRefused, ArchiveUnusable, ArchiveUnwritable
from runfold.ledger.months import FIRST_RUN, bounds, table_of
from runfold.ledger.postgres.connections import Pool
from runfold.ledger.postgres.locks import lock_limit

HOLD_SECONDS: Final = 60
"""How long a hold that is being placed is waited for."""
# By the primary key from page to page, each a snapshot of its own; the payloads by their key,
# whatever the statistics say.
_ENTRIES: Final = """
SELECT event.*, payload.salt, payload.body FROM (
  SELECT * FROM ledger.event
  WHERE run_id >= $1 AND run_id < $2 AND (project_id, run_id, version) > ($3, $4, $5)
  ORDER BY project_id, run_id, version LIMIT $6
) AS event
LEFT JOIN LATERAL (
  SELECT payload.salt, payload.body FROM ledger.payload AS payload
  WHERE payload.project_id = event.project_id AND payload.run_id = event.run_id
    AND payload.version = event.version OFFSET 0
) AS payload ON true
ORDER BY event.project_id, event.run_id, event.version
"""

_WRITABLE: Final = "name a folder that can be written to, by --to or RUNFOLD_ARCHIVE"


async def export(
    pool: Pool, month: str, folder: Path, *, actor: str, reason: str | None = None
) -> Archive:
    """Write a month to a file in `folder`, read it back, check every hash, and record it.

    Raises ArchiveRefused when the month is still needed or another file has the name,
    ArchiveUnusable when the file does not check or cannot be written, InvalidValue or AccessDenied.
    """
    why = check_request(month, actor, reason)
    path = await asyncio.to_thread(folder.resolve) / f"{table_of(month)}.parquet"
    async with alone(pool, month) as connection:
        written = path.with_name(f"{path.stem}.{token_hex(8)}.part")
        try:
            facts = await _exported(connection, month, written)
            async with connection.transaction():
                await _check_holds(connection, month)
                earlier = await archive_of(connection, month)
                await asyncio.to_thread(_make_room, month, path, facts["sha256"], earlier)
                await asyncio.to_thread(put_in_place, written, path)
                file = {**facts, "file": str(path)}
                return await record_archive(
                    connection, "archive.exported", month, file, actor=actor, reason=why
                )
        except OSError as error:
            problem = f"cannot be written ({error.strerror})"
            raise ArchiveUnwritable(str(path), problem, _WRITABLE) from error
        finally:
            with suppress(OSError):
                await asyncio.to_thread(written.unlink, missing_ok=True)


async def _check_holds(connection: Any, month: str) -> None:
    """Raise ArchiveRefused for a month that is held; until the transaction's end, none is placed.

    One that is being placed is waited for.
    """
    await connection.execute(lock_limit(f"{HOLD_SECONDS}s"))
    await connection.execute(LOCK_ALL)
    if in_the_way := await held(connection, month):
        raise ArchiveRefused(month, in_the_way)


def _make_room(month: str, path: Path, sha256: bytes, earlier: Archive | None) -> None:
    """Set the earlier export of the month aside; raise ArchiveRefused if another file lies there.

    Every ledger names its files alike, and after a detach the file is the only copy of its events:
    that of another ledger, too, of which this one is a restored copy. So none is replaced.
    """
    if not path.exists():
        return
    with opened(path) as file:
        _, there = digest(file)
    if there == sha256:
        return
    if earlier is None or there != earlier.sha256:
        problem = (
            f"another file is at {path}, and may be the only copy of a month of another ledger: "
            "move it away, or name a folder of this ledger's own"
        )
        raise ArchiveRefused(month, [problem])
    path.rename(path.with_name(f"{path.stem}.{there.hex()[:16]}{path.suffix}"))


async def _exported(connection: Any, month: str, path: Path) -> dict[str, Any]:
    """Write the file, check what can be read back from it, and return the facts to record."""
    newest = await _newest(connection, month)
    await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
    payloads = await _write(connection, month, path)
    after = await _newest(connection, month)
    if any(after[name] != newest[name] for name in ("events", "last_position")):
        raise ArchiveRefused(month, ["events were appended during the export: export again"])
    return await asyncio.to_thread(_facts, month, path, newest, payloads)


async def _newest(connection: Any, month: str) -> Mapping[str, Any]:
    """Return where the month's newest event is, unless something stands in the way."""
    in_the_way, newest = await obstacles(connection, month, detaching=False)
    if in_the_way or newest is None:
        raise ArchiveRefused(month, in_the_way)
    return newest


async def _write(connection: Any, month: str, path: Path) -> int:
    """Write the month's events page by page; no snapshot is held from one page to the next."""
    payloads, after = 0, ("", FIRST_RUN, 0)
    with Writer(path) as file:
        while rows := await connection.fetch(_ENTRIES, *bounds(month), *after, ROWS_A_GROUP):
            payloads += sum(row["body"] is not None for row in rows)
            await asyncio.to_thread(file.add, rows)
            after = (rows[-1]["project_id"], rows[-1]["run_id"], rows[-1]["version"])
    return payloads


def _facts(month: str, path: Path, newest: Mapping[str, Any], payloads: int) -> dict[str, Any]:
    with opened(path) as file:
        chain = check_file(file)
        size, sha256 = digest(file)
    if chain.findings or chain.events != newest["events"] or chain.payloads != payloads:
        problem = (
            chain.findings[0].detail
            if chain.findings
            else f"has {chain.events} events of {newest['events']}"
        )
        raise ArchiveUnusable(str(path), f"does not check: {problem}", "run `runfold verify`")
    return {
        **dict(zip(("first", "beyond"), bounds(month), strict=True)),
        "runs": chain.runs,
        "events": chain.events,
        "payloads": payloads,
        "size_bytes": size,
        "sha256": sha256,
        **{name: newest[name] for name in ("generation", "last_position", "last_txid")},
    }
