"""Checks of idempotency keys: each event's key is kept, and each kept key has its event."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final
from uuid import UUID

from runfold.ledger.archive.record import ARCHIVES
from runfold.ledger.postgres.connections import Pool
from runfold.ledger.proof.chain import Finding, forgotten_key

_PAGE: Final = 5_000
FORGOTTEN: Final = """
SELECT event.run_id, event.version, event.key FROM ledger.event AS event
WHERE event.project_id = $1 AND event.run_id BETWEEN $2 AND $3 AND event.key IS NOT NULL
  AND NOT EXISTS (SELECT FROM ledger.command AS command
    WHERE command.project_id = event.project_id AND command.key = event.key
      AND command.run_id = event.run_id AND command.version = event.version
      AND coalesce(command.hash, event.hash) = event.hash
    OFFSET 0)
ORDER BY event.run_id, event.version
"""
# Anyone who has the salt of an erased content's key finds the content by guessing.
_GUESSABLE: Final = """
SELECT command.run_id, command.version, command.key FROM ledger.event AS erasure
CROSS JOIN LATERAL (
  SELECT erased.key FROM ledger.event AS erased WHERE erased.project_id = erasure.project_id
    AND erased.run_id = erasure.run_id
    AND erased.version = erasure.compensates AND erased.key IS NOT NULL OFFSET 0
) AS erased
CROSS JOIN LATERAL (
  SELECT command.* FROM ledger.command AS command
  WHERE command.project_id = $1 AND command.key = erased.key AND command.salt IS NOT NULL OFFSET 0
) AS command
WHERE erasure.project_id = $1 AND erasure.run_id BETWEEN $2 AND $3
  AND erasure.type = 'payload.erased'
ORDER BY command.run_id, command.version
"""
# The table has no index by run, so this is a check of a whole project only.
_KEPT: Final = f"""
WITH page AS MATERIALIZED (
  SELECT command.key, command.run_id, command.version FROM ledger.command AS command
  WHERE command.project_id = $1 AND command.key > $2 ORDER BY command.key LIMIT $3
), archive AS MATERIALIZED (
  SELECT archive.month, archive.first, archive.beyond FROM {ARCHIVES} AS archive
  WHERE archive.detached
)
SELECT page.*,
  (SELECT archive.month FROM archive
    WHERE page.run_id >= archive.first AND page.run_id < archive.beyond) AS month,
  EXISTS (SELECT FROM ledger.event AS event
    WHERE event.project_id = $1 AND event.run_id = page.run_id AND event.version = page.version
      AND event.key = page.key OFFSET 0) AS has_event
FROM page ORDER BY page.key
"""


async def keys_of_range(connection: Any, project_id: str, first: UUID, last: UUID) -> list[Finding]:
    """Return what is wrong with the keys of a range's events, in the connection's snapshot."""
    forgotten = await connection.fetch(FORGOTTEN, project_id, first, last)
    guessable = await connection.fetch(_GUESSABLE, project_id, first, last)
    return [
        *(forgotten_key(*row.values()) for row in forgotten),
        *(_guessable(*row.values()) for row in guessable),
    ]


async def keys_without_event(
    pool: Pool, project_id: str, archived: Mapping[str, int]
) -> AsyncIterator[Finding]:
    """Yield the kept keys that belong to no event; `archived` counts the keys in each file."""
    after, in_files = "", Counter[str]()
    while rows := await pool.fetch(_KEPT, project_id, after, _PAGE):
        after = rows[-1]["key"]
        for row in rows:
            if row["month"] is not None:
                in_files[row["month"]] += 1
            elif not row["has_event"]:
                yield _invented(row["run_id"], row["version"], row["key"])
    for month in sorted(in_files.keys() & archived.keys()):
        if more := in_files[month] - archived[month]:
            detail = f"{month}: {more:,} idempotency keys name no event of it"
            yield Finding(None, None, "key", detail)


def _invented(run_id: UUID, version: int, key: str) -> Finding:
    detail = f"the idempotency key {key!r} belongs to no such event: its command would be refused"
    return Finding(run_id, version, "key", detail)


def _guessable(run_id: UUID, version: int, key: str) -> Finding:
    detail = f"the content is gone, but its key {key!r} still has its salt: it can be guessed"
    return Finding(run_id, version, "key", detail)
