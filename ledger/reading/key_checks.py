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
SELECT e.run_id, e.version, e.key FROM ledger.event AS e
WHERE e.project_id = $1 AND e.run_id BETWEEN $2 AND $3 AND e.key IS NOT NULL
  AND NOT EXISTS (SELECT FROM ledger.command AS c
    WHERE c.project_id = e.project_id AND c.key = e.key
      AND c.run_id = e.run_id AND c.version = e.version AND coalesce(c.hash, e.hash) = e.hash
    OFFSET 0)
ORDER BY e.run_id, e.version
"""
# Anyone who has the salt of an erased content's key finds the content by guessing.
_GUESSABLE: Final = """
SELECT c.run_id, c.version, c.key FROM ledger.event AS x
CROSS JOIN LATERAL (
  SELECT e.key FROM ledger.event AS e WHERE e.project_id = x.project_id AND e.run_id = x.run_id
    AND e.version = x.compensates AND e.key IS NOT NULL OFFSET 0
) AS e
CROSS JOIN LATERAL (
  SELECT c.* FROM ledger.command AS c
  WHERE c.project_id = $1 AND c.key = e.key AND c.salt IS NOT NULL OFFSET 0
) AS c
WHERE x.project_id = $1 AND x.run_id BETWEEN $2 AND $3 AND x.type = 'payload.erased'
ORDER BY c.run_id, c.version
"""
# By run there is no way into the table but all of it: of a whole project only.
_KEPT: Final = f"""
WITH page AS MATERIALIZED (
  SELECT c.key, c.run_id, c.version FROM ledger.command AS c
  WHERE c.project_id = $1 AND c.key > $2 ORDER BY c.key LIMIT $3
), archive AS MATERIALIZED (
  SELECT a.month, a.first, a.beyond FROM {ARCHIVES} AS a WHERE a.detached
)
SELECT page.*,
  (SELECT archive.month FROM archive
    WHERE page.run_id >= archive.first AND page.run_id < archive.beyond) AS month,
  EXISTS (SELECT FROM ledger.event AS e
    WHERE e.project_id = $1 AND e.run_id = page.run_id AND e.version = page.version
      AND e.key = page.key OFFSET 0) AS has_event
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
