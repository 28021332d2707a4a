"""Detach: take an exported month out of the database, but for each run's input and outcome.

check that the file is there and nothing came since -> take the partition away and record it,
in one transaction -> delete the payloads
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final
from uuid import UUID

from runfold.ledger.archive.holds import holds
from runfold.ledger.archive.obstacles import obstacles
from runfold.ledger.archive.record import LOCK_ALL, Archive, archive_of, record_archive
from runfold.ledger.archive.request import alone, check_request
from runfold.ledger.errors import ArchiveRefused
from runfold.ledger.months import table_of
from runfold.ledger.postgres.connections import Pool
from runfold.ledger.postgres.locks import lock_limit, retry_on_lock

_SINCE: Final = """
SELECT FROM ledger.{table} WHERE txid >= pg_snapshot_xmin($1::text::pg_snapshot)
  AND NOT pg_visible_in_snapshot(txid, $1::text::pg_snapshot) AND position > $2 LIMIT 1
"""
# What run_state points to stays: the input and the outcome of a run are read with it.
_PAYLOADS: Final = """
WITH page AS (
  SELECT run_id, version FROM ledger.payload
  WHERE project_id = $1 AND (run_id, version) > ($2, $3) AND run_id < $4
  ORDER BY run_id, version LIMIT 10000
), gone AS (
  DELETE FROM ledger.payload AS payload USING page
  WHERE payload.project_id = $1 AND payload.run_id = page.run_id AND payload.version = page.version
    AND payload.version > 1 AND NOT EXISTS (SELECT FROM ledger.run_state AS run
      WHERE run.project_id = $1 AND run.run_id = payload.run_id
        AND run.outcome_version = payload.version)
)
SELECT run_id, version FROM page ORDER BY run_id DESC, version DESC LIMIT 1
"""


async def detach(pool: Pool, month: str, *, actor: str, reason: str | None = None) -> Archive:
    """Take an exported month out of the database, but for each run's input and outcome.

    Repeat it when it was interrupted. Raises ArchiveRefused, ArchiveUnusable, LockTimeout,
    InvalidValue or AccessDenied.
    """
    why = check_request(month, actor, reason)
    async with alone(pool, month) as connection:
        return await detach_on(connection, month, actor, why)


async def detach_on(connection: Any, month: str, actor: str, reason: str | None) -> Archive:
    """Detach on a connection that holds the archive's lock."""
    archive = await archive_of(connection, month)
    if archive is None or not archive.detached:
        in_the_way, newest = await obstacles(connection, month, detaching=True)
        if archive is None or in_the_way or newest is None:
            raise ArchiveRefused(month, in_the_way)
        archive = await _take_away(connection, archive, newest, actor, reason)
    await _delete_payloads(connection, archive)
    return archive


async def _take_away(
    connection: Any, archive: Archive, newest: Mapping[str, Any], actor: str, reason: str | None
) -> Archive:
    """Detach and drop the partition, and record it, in one short transaction.

    Locks: ACCESS EXCLUSIVE on `event`, waited for two seconds at most, in five tries.
    """

    async def transaction() -> Archive:
        async with connection.transaction():
            await connection.execute(lock_limit())
            await _drop_partition(connection, archive.month, newest)
            return await record_archive(
                connection,
                "archive.detached",
                archive.month,
                asdict(archive),
                actor=actor,
                reason=reason,
            )

    return await retry_on_lock(transaction, "the event table")


async def _drop_partition(connection: Any, month: str, newest: Mapping[str, Any]) -> None:
    """Detach and drop the month's table, unless it is held or was written to meanwhile.

    What is written after the search for obstacles has a later transaction id than any that had
    ended.
    """
    table = table_of(month)
    await connection.execute(f"ALTER TABLE ledger.event DETACH PARTITION ledger.{table}")
    # A hold that is being placed is waited for; a later one comes after the detach.
    await connection.execute(LOCK_ALL)
    if await holds(connection, month):
        raise ArchiveRefused(month, ["a hold was placed meanwhile"])
    if await connection.fetch(_SINCE.format(table=table), newest["seen"], newest["base"]):
        raise ArchiveRefused(month, ["events were appended since the export: export again"])
    await connection.execute(f"DROP TABLE ledger.{table}")


async def _delete_payloads(connection: Any, archive: Archive) -> None:
    for row in await connection.fetch("SELECT project_id FROM ledger.project"):
        after: tuple[UUID, int] | None = (archive.first, 0)
        while after is not None:
            done = await connection.fetchrow(_PAYLOADS, row["project_id"], *after, archive.beyond)
            after = (done["run_id"], done["version"]) if done else None
