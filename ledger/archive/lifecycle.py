"""Archiving a month: export, detach, attach, and the holds that forbid it; all is recorded.

    export: check that nobody needs the month -> write the file -> read it back and check every
      hash -> record
    detach: check that the file is there and nothing came since -> take the partition away ->
      record -> delete its payloads

Why files, what stays in the database and how it is read: docs/decisions/0018. Only the owner of
the schema may do it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any, Final
from uuid import UUID

import asyncpg

from runfold.ledger import log, names
from runfold.ledger.archive.file import (
    EVENT,
    ROWS_A_GROUP,
    Writer,
    check_file,
    digest,
    pages,
    put_in_place,
)
from runfold.ledger.archive.reading import Archive, detached
from runfold.ledger.errors import ArchiveRefused, ArchiveUnusable, RunNotFound
from runfold.ledger.months import bounds, check_month, month_of, start_of, table_of
from runfold.ledger.postgres.connections import FAILURES, Pool, fetch
from runfold.ledger.postgres.errors import translated
from runfold.ledger.validation import check_actor, check_text

LOCK_TIMEOUT: Final = "2s"
TRIES: Final = 5
FOR_A_REBUILD: Final = "for the time of a rebuild"
"""The reason of what `attached` records, and how it knows its own."""
_REBUILD: Final = "rebuild"

_LOCK_KEY: Final = "hashtextextended('ledger.archive', 0)"
_LEAVES: Final = """
SELECT replace(substr(c.relname, 7), '_', '-') AS month, pg_total_relation_size(c.oid) AS bytes
FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = 'ledger.event'::regclass
"""
_ONE: Final = "SELECT * FROM ledger.archive WHERE month = $1"
_OPEN: Final = (
    "SELECT count(*) FROM ledger.run_state "
    "WHERE run_id >= $1 AND run_id < $2 AND completed_at IS NULL"
)
_HOLDS: Final = """
SELECT h.* FROM (
  SELECT DISTINCT ON (a.month, a.project_id, a.run_id) a.* FROM ledger.archive_event AS a
  WHERE a.type LIKE 'hold.%' AND ($1::text IS NULL OR a.month = $1)
  ORDER BY a.month, a.project_id, a.run_id, a.number DESC
) AS h WHERE h.type = 'hold.placed' ORDER BY h.number
"""
_NEWEST: Final = """
SELECT count(*) AS events, max(e.position) AS last_position,
  max(e.txid) FILTER (WHERE e.position > split_part(g.start, '@', 2)::bigint) AS last_txid,
  g.generation, split_part(g.start, '@', 2)::bigint AS base,
  pg_snapshot_xmin(pg_current_snapshot()) AS oldest
FROM ledger.feed_generation AS g LEFT JOIN ledger.{table} AS e ON true WHERE g.end_position IS NULL
GROUP BY g.generation, g.start
"""
_BEHIND: Final = """
SELECT name FROM ledger.projection AS p
WHERE NOT ledger.feed_passed(p.generation, p.snapshot, $1, $2, $3) ORDER BY name
"""
_ASIDE: Final = """
SELECT p.name, count(*) AS runs FROM ledger.projection_aside AS a JOIN ledger.projection AS p
  ON a.relation = format('projection.%s_v%s', p.name, p.version)
WHERE a.run_id >= $1 AND a.run_id < $2 GROUP BY p.name ORDER BY p.name
"""
_ENTRIES: Final = (
    "SELECT * FROM ledger.entry WHERE run_id >= $1 AND run_id < $2 "
    "ORDER BY project_id, run_id, version"
)
_SINCE: Final = "SELECT FROM ledger.{table} WHERE txid >= $1 AND position > $2 LIMIT 1"
_RECORD: Final = """
INSERT INTO ledger.archive_event (recorded_at, type, actor, reason, month, project_id, run_id,
  first, beyond, runs, events,
  payloads, generation, last_position, last_txid, size_bytes, sha256, file)
VALUES (ledger.now(), $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
"""
_FACTS: Final = (
    "first", "beyond", "runs", "events", "payloads", "generation", "last_position", "last_txid",
    "size_bytes", "sha256", "file",
)  # fmt: skip
_HISTORY: Final = """
SELECT number, recorded_at, type, actor, reason, month, project_id, run_id, events, size_bytes,
  sha256, file
FROM ledger.archive_event WHERE $1::text IS NULL OR month = $1 ORDER BY number
"""
# What run_state points to stays: the input and the outcome of a run are read with it.
_PAYLOADS: Final = """
WITH page AS (
  SELECT run_id, version FROM ledger.payload
  WHERE project_id = $1 AND (run_id, version) > ($2, $3) AND run_id < $4
  ORDER BY run_id, version LIMIT 10000
), gone AS (
  DELETE FROM ledger.payload AS p USING page
  WHERE p.project_id = $1 AND p.run_id = page.run_id AND p.version = page.version AND p.version > 1
    AND NOT EXISTS (SELECT FROM ledger.run_state AS s
      WHERE s.project_id = $1 AND s.run_id = p.run_id AND s.outcome_version = p.version)
)
SELECT run_id, version FROM page ORDER BY run_id DESC, version DESC LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Month:
    """A month's state: open, exported (and still in the database), detached, or attached again."""

    month: str
    state: str
    bytes: int | None
    """What its events take in the database, indexes included; None when they are not there."""
    archive: Archive | None
    holds: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a dry run found: the obstacles, and how much would be exported or detached."""

    month: str
    obstacles: tuple[str, ...]
    events: int


async def months(pool: Pool) -> list[Month]:
    """Return every month that has a partition or a file, oldest first."""
    leaves = {row["month"]: row["bytes"] for row in await fetch(pool, _LEAVES)}
    found = {
        row["month"]: Archive(**row) for row in await fetch(pool, "SELECT * FROM ledger.archive")
    }
    holds = [row["month"] for row in await fetch(pool, _HOLDS, None)]
    return [
        Month(
            month,
            found[month].state if month in found else "open",
            leaves.get(month),
            found.get(month),
            holds.count(month),
        )
        for month in sorted({*leaves, *found})
    ]


async def plan(pool: Pool, month: str, *, detach: bool = False) -> Plan:
    """Return what an export, or with `detach` a detach, would meet; change nothing.

    Raises InvalidValue.
    """
    check_month(month)
    try:
        async with pool.acquire() as connection:
            found, newest = await _obstacles(connection, month, detaching=detach)
            return Plan(month, tuple(found), newest["events"] if newest else 0)
    except (*FAILURES, OSError) as error:
        raise translated(error) from error


async def export(
    pool: Pool, month: str, folder: Path, *, actor: str, reason: str | None = None
) -> Archive:
    """Write a month to a file in `folder`, read it back, check every hash, and record it.

    Raises ArchiveRefused when the month is still needed, ArchiveUnusable when the file does not
    check or cannot be written, InvalidValue or AccessDenied.
    """
    _check(month, actor, reason)
    path = await asyncio.to_thread(folder.resolve) / f"{table_of(month)}.parquet"
    async with _alone(pool, month) as connection:
        written = path.with_name(f"{path.stem}.{token_hex(8)}.part")
        try:
            facts = await _exported(connection, month, written)
            await asyncio.to_thread(put_in_place, written, path)
        except OSError as error:
            raise ArchiveUnusable(str(written), f"cannot be written ({error.strerror})") from error
        finally:
            with suppress(OSError):
                await asyncio.to_thread(written.unlink, missing_ok=True)
        await _record(
            connection,
            "archive.exported",
            month,
            {**facts, "file": str(path)},
            actor=actor,
            reason=reason,
        )
        return await _stands(connection, month)


async def detach(pool: Pool, month: str, *, actor: str, reason: str | None = None) -> Archive:
    """Take an exported month out of the database, but for each run's input and outcome.

    Repeat it when it was interrupted. Raises ArchiveRefused, ArchiveUnusable, InvalidValue or
    AccessDenied.
    """
    _check(month, actor, reason)
    async with _alone(pool, month) as connection:
        return await _detach(connection, month, actor, reason)


async def attach(pool: Pool, month: str, *, actor: str, reason: str | None = None) -> Archive:
    """Bring a detached month back from its file, every event and payload as it was.

    Raises ArchiveRefused, ArchiveUnusable, InvalidValue or AccessDenied.
    """
    _check(month, actor, reason)
    async with _alone(pool, month) as connection:
        found = await connection.fetchrow(_ONE, month)
        if found is None or not found["detached"]:
            raise ArchiveRefused(month, ["it is not detached"])
        return await _attach(connection, Archive(**found), actor, reason)


@asynccontextmanager
async def attached(pool: Pool) -> AsyncIterator[None]:
    """Attach every detached month while the block lasts, then detach them again.

    Raises ArchiveUnusable, or AccessDenied unless the owner calls it or no month is detached.
    """
    async with pool.acquire() as connection:
        await connection.execute(f"SELECT pg_advisory_lock_shared({_LOCK_KEY})")
        try:
            for archive in await detached(connection):
                await _attach(connection, archive, _REBUILD, FOR_A_REBUILD)
            yield
        finally:
            await connection.execute(f"SELECT pg_advisory_unlock_shared({_LOCK_KEY})")
            await _give_back(connection)


async def hold(
    pool: Pool, target: str | tuple[str, UUID], *, actor: str, reason: str, placed: bool = True
) -> None:
    """Forbid to export or detach a month, or one run's month; with `placed` False allow it again.

    Raises InvalidValue, RunNotFound, ArchiveRefused when there is no hold to release.
    """
    project_id, run_id = (None, None) if isinstance(target, str) else target
    month = check_month(target) if isinstance(target, str) else month_of(target[1])
    _check(month, actor, reason)
    known = "SELECT FROM ledger.run_state WHERE project_id = $1 AND run_id = $2"
    if run_id is not None and not await fetch(pool, known, project_id, run_id):
        raise RunNotFound(run_id, str(project_id))
    holds = [(row["project_id"], row["run_id"]) for row in await fetch(pool, _HOLDS, month)]
    if not placed and (project_id, run_id) not in holds:
        raise ArchiveRefused(month, [f"nobody holds {run_id or month}"])
    type_ = "hold.placed" if placed else "hold.released"
    await fetch(
        pool, _RECORD, type_, actor, reason, month, project_id, run_id, *(None for _ in _FACTS)
    )


async def history(pool: Pool, month: str | None = None) -> list[Mapping[str, Any]]:
    """Return what was done with a month, or with all, oldest first. Raises InvalidValue."""
    return list(await fetch(pool, _HISTORY, None if month is None else check_month(month)))


def _check(month: str, actor: str, reason: str | None) -> None:
    check_month(month)
    check_actor(actor)
    if reason is not None:
        check_text("reason", reason, limit=2_000)


@asynccontextmanager
async def _alone(pool: Pool, month: str) -> AsyncIterator[Any]:
    """Yield a connection while no other archive command and no rebuild is at work."""
    try:
        async with pool.acquire() as connection:
            if not await connection.fetchval(f"SELECT pg_try_advisory_lock({_LOCK_KEY})"):
                raise ArchiveRefused(
                    month, ["a rebuild or another archive command is at work: wait for it"]
                )
            try:
                yield connection
            finally:
                await connection.execute(f"SELECT pg_advisory_unlock({_LOCK_KEY})")
    except (*FAILURES, OSError) as error:
        raise translated(error) from error


async def _obstacles(
    connection: Any, month: str, *, detaching: bool
) -> tuple[list[str], Mapping[str, Any] | None]:
    """Return the obstacles, and where the month's newest event is (None without a partition)."""
    first, beyond = bounds(month)
    if month not in {row["month"] for row in await connection.fetch(_LEAVES)}:
        found = await connection.fetchrow(_ONE, month)
        return [
            "it is detached already"
            if found and found["detached"]
            else "no events of it are in this database"
        ], None
    newest = await connection.fetchrow(_NEWEST.format(table=table_of(month)))
    now = await connection.fetchval("SELECT ledger.now()")
    obstacles = []
    if now < start_of(month_of(beyond)):
        obstacles.append("it is not over")
    elif newest["events"] == 0:
        obstacles.append("it has no events")
    if unfinished := await connection.fetchval(_OPEN, first, beyond):
        obstacles.append(f"{unfinished:,} of its runs have not ended (`runfold runs` lists them)")
    for row in await connection.fetch(_HOLDS, month):
        of = f" run {row['run_id']} of {row['project_id']}" if row["run_id"] else " it"
        obstacles.append(f"{row['actor']} holds{of}: {row['reason']}")
    given = (newest["generation"], newest["last_position"], newest["last_txid"])
    behind = [row["name"] for row in await connection.fetch(_BEHIND, *given)]
    obstacles += [
        f"projection {name} has not passed it (`runfold projections run {name} --once`)"
        for name in behind
    ]
    obstacles += [
        f"projection {row['name']} has set aside {row['runs']:,} of its runs "
        f"(`runfold projections status {row['name']}`)"
        for row in await connection.fetch(_ASIDE, first, beyond)
    ]
    if detaching:
        obstacles += await _unexported(connection, month, newest)
    return obstacles, newest


async def _unexported(connection: Any, month: str, newest: Mapping[str, Any]) -> list[str]:
    found = await connection.fetchrow(_ONE, month)
    if found is None:
        return [f"it is not exported (`runfold archive export {month}`)"]
    if (found["events"], found["last_position"]) != (newest["events"], newest["last_position"]):
        return [
            f"events came since it was exported: export it again (`runfold archive export {month}`)"
        ]
    await asyncio.to_thread(Archive(**found).check_digest)
    return []


async def _exported(connection: Any, month: str, path: Path) -> dict[str, Any]:
    """Write the file and check it by what can be read back from it; give what is recorded of it."""
    # The lock keeps the partition where it is; one snapshot for all that is read.
    async with connection.transaction(isolation="repeatable_read"):
        await connection.execute("LOCK TABLE ledger.event IN ACCESS SHARE MODE")
        obstacles, newest = await _obstacles(connection, month, detaching=False)
        if obstacles or newest is None:
            raise ArchiveRefused(month, obstacles)
        await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
        payloads = await _write(connection, month, path)
    chain = await asyncio.to_thread(check_file, path)
    if chain.findings or chain.events != newest["events"] or chain.payloads != payloads:
        problem = (
            chain.findings[0].detail
            if chain.findings
            else f"has {chain.events} events of {newest['events']}"
        )
        raise ArchiveUnusable(str(path), f"does not check: {problem}; run `runfold verify`")
    size, sha256 = await asyncio.to_thread(digest, path)
    return {
        **dict(zip(("first", "beyond"), bounds(month), strict=True)),
        "runs": chain.runs,
        "events": chain.events,
        "payloads": payloads,
        "size_bytes": size,
        "sha256": sha256,
        **{name: newest[name] for name in ("generation", "last_position", "last_txid")},
    }


async def _write(connection: Any, month: str, path: Path) -> int:
    payloads = 0
    with Writer(path) as file:
        cursor = await connection.cursor(_ENTRIES, *bounds(month))
        while rows := await cursor.fetch(ROWS_A_GROUP):
            payloads += sum(row["body"] is not None for row in rows)
            await asyncio.to_thread(file.add, rows)
    return payloads


async def _detach(connection: Any, month: str, actor: str, reason: str | None) -> Archive:
    found = await connection.fetchrow(_ONE, month)
    if found is None or not found["detached"]:
        obstacles, newest = await _obstacles(connection, month, detaching=True)
        if obstacles or newest is None:
            raise ArchiveRefused(month, obstacles)
        await _take_away(connection, Archive(**found), newest, actor, reason)
    archive = await _stands(connection, month)
    for row in await connection.fetch("SELECT project_id FROM ledger.project"):
        after: tuple[UUID, int] | None = (archive.first, 0)
        while after is not None:
            done = await connection.fetchrow(_PAYLOADS, row["project_id"], *after, archive.beyond)
            after = (done["run_id"], done["version"]) if done else None
    return archive


async def _take_away(
    connection: Any, archive: Archive, newest: Mapping[str, Any], actor: str, reason: str | None
) -> None:
    """Detach and drop the partition, and record it, in one short transaction.

    Locks: ACCESS EXCLUSIVE on `event`, waited for two seconds at most, in five tries. What is
    written after the search for obstacles has a later transaction id than any that had ended.
    """
    table = table_of(archive.month)
    for attempt in range(1, TRIES + 1):
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
                await connection.execute(
                    f"ALTER TABLE ledger.event DETACH PARTITION ledger.{table}"
                )
                # A hold that is being placed is waited for; a later one comes after the detach.
                await connection.execute(
                    "LOCK TABLE ledger.archive_event IN SHARE ROW EXCLUSIVE MODE"
                )
                if await connection.fetch(_HOLDS, archive.month):
                    raise ArchiveRefused(archive.month, ["somebody holds it since a moment ago"])
                if await connection.fetch(
                    _SINCE.format(table=table), newest["oldest"], newest["base"]
                ):
                    raise ArchiveRefused(
                        archive.month, ["events came since it was exported: export it again"]
                    )
                await connection.execute(f"DROP TABLE ledger.{table}")
                await _record(
                    connection,
                    "archive.detached",
                    archive.month,
                    asdict(archive),
                    actor=actor,
                    reason=reason,
                )
                return
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            await asyncio.sleep(0.1 * 2**attempt)
    raise ArchiveRefused(
        archive.month,
        [f"the event table stayed locked through {TRIES} tries of {LOCK_TIMEOUT}: try later"],
    )


async def _attach(connection: Any, archive: Archive, actor: str, reason: str | None) -> Archive:
    async with connection.transaction():
        await connection.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended('ledger.archive.attach', 0))"
        )
        if not (await _stands(connection, archive.month)).detached:
            return await _stands(connection, archive.month)
        await asyncio.to_thread(archive.check_digest)
        table = table_of(archive.month)
        await connection.execute(
            f"CREATE TABLE ledger.{table} "
            "(LIKE ledger.event INCLUDING DEFAULTS INCLUDING CONSTRAINTS)"
        )
        await connection.execute(
            "CREATE TEMP TABLE archived_payload (LIKE ledger.payload) ON COMMIT DROP"
        )
        names = [name for name, _ in EVENT]
        reading = pages(archive.path)
        while (page := await asyncio.to_thread(next, reading, None)) is not None:
            await connection.copy_records_to_table(
                table,
                schema_name="ledger",
                columns=names,
                records=[[row[name] for name in names] for row in page],
            )
            await connection.copy_records_to_table(
                "archived_payload",
                columns=["project_id", "run_id", "version", "salt", "body"],
                records=[
                    (row["project_id"], row["run_id"], row["version"], row["salt"], row["body"])
                    for row in page
                    if row["body"] is not None
                ],
            )
        await connection.execute(
            "INSERT INTO ledger.payload SELECT * FROM archived_payload ON CONFLICT DO NOTHING"
        )
        await connection.execute(
            "SELECT ledger.attach_partition($1)", start_of(archive.month).replace(tzinfo=None)
        )
        await _record(
            connection,
            "archive.attached",
            archive.month,
            asdict(archive),
            actor=actor,
            reason=reason,
        )
    return await _stands(connection, archive.month)


async def _give_back(connection: Any) -> None:
    """Detach what rebuilds brought back, unless another rebuild is running: then that one will."""
    if not await connection.fetchval(f"SELECT pg_try_advisory_lock({_LOCK_KEY})"):
        return
    try:
        mine = "SELECT month FROM ledger.archive WHERE NOT detached AND actor = $1 AND reason = $2"
        for row in await connection.fetch(mine, _REBUILD, FOR_A_REBUILD):
            try:
                await _detach(connection, row["month"], _REBUILD, FOR_A_REBUILD)
            except (ArchiveRefused, ArchiveUnusable) as stays:
                log.logger().warning(names.ARCHIVE_STAYS, month=row["month"], error=str(stays))
    finally:
        await connection.execute(f"SELECT pg_advisory_unlock({_LOCK_KEY})")


async def _record(
    connection: Any,
    type_: str,
    month: str,
    facts: Mapping[str, Any],
    *,
    actor: str,
    reason: str | None,
) -> None:
    await connection.execute(
        _RECORD, type_, actor, reason, month, None, None, *(facts[name] for name in _FACTS)
    )


async def _stands(connection: Any, month: str) -> Archive:
    return Archive(**await connection.fetchrow(_ONE, month))
