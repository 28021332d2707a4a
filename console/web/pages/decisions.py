"""Decisions of the past: of the newest runs, or of those of one kind, without their reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from runfold.ledger import Ledger
from runfold.ledger.errors import InvalidQuery
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.reading.query_words import quoted

RUNS: Final = 100
"""The newest runs that are looked through."""
_EVENTS: Final = 300
"""The newest events of each."""
_OF_EACH: Final = 3
# Lateral with LIMIT, so that each run's events are looked up by their key. The reasons are content,
# which a list does not show.
_DECIDED: Final = f"""
SELECT run.kind, event.*
FROM unnest($2::uuid[], $3::int[], $4::text[]) AS run (run_id, version, kind)
CROSS JOIN LATERAL (
  SELECT event.run_id, event.version, event.type, event.request, event.actor, event.credential,
    event.recorded_at
  FROM ledger.event AS event
  WHERE event.project_id = $1 AND event.run_id = run.run_id
    AND event.version > run.version - {_EVENTS} AND event.version <= run.version
    AND event.type IN ('approval.granted', 'approval.rejected', 'approval.expired')
  ORDER BY event.version DESC LIMIT {_OF_EACH}) AS event
ORDER BY event.recorded_at DESC, event.run_id
"""


async def decided(
    ledger: Ledger, kind: str | None = None, *, before: UUID | None = None
) -> Sequence[Mapping[str, Any]]:
    """Return the decisions on the newest runs, of all kinds or one; the newest decision first."""
    try:
        query = "" if kind is None else f"kind:{quoted(kind)}"
        listed = await ledger.search(
            query, before=before and str(before), limit=RUNS, content=False
        )
    except InvalidQuery:  # a kind that no query can name
        return []
    runs = [(run.run_id, run.version, run.kind) for run in listed]
    columns = [list(column) for column in zip(*runs, strict=True)] or [[], [], []]
    return [dict(row) for row in await fetch(ledger.pool, _DECIDED, ledger.project_id, *columns)]
