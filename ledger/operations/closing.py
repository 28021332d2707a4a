"""Closing: how a lease ended, if its own holder ended it.

A lease is ended once, so its token is the idempotency key of its end: an end that is sent again,
because the answer to the first was lost, finds the first one's outcome. It needs no row of its own
in `ledger.command`, and it is no late write of a worker that lost its lease.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Final, NamedTuple
from uuid import UUID

from runfold.ledger.operations.columns import columns
from runfold.ledger.postgres.connections import Connection, Pool, fetch
from runfold.ledger.run import Receipt

# Lateral with OFFSET 0: each lease is looked up by its key, whatever the planner expects.
_CLOSINGS: Final = """
SELECT closing.run_id, closing.version, closing.hash, closing.type, closing.state,
  closing.error_code, closing.cost_usd, closing.step_count, closing.output_sha256,
  payload.body::text AS body
FROM unnest($2::uuid[], $3::int[]) AS lease (run_id, token)
CROSS JOIN LATERAL (
  SELECT e.worker_id FROM ledger.event AS e
  WHERE e.project_id = $1 AND e.run_id = lease.run_id AND e.version = lease.token
    AND e.type = 'lease.acquired' OFFSET 0
) AS acquired
CROSS JOIN LATERAL (
  SELECT e.* FROM ledger.event AS e
  WHERE e.project_id = $1 AND e.run_id = lease.run_id AND e.version > lease.token
    AND (
      e.type IN (
        'run.completed', 'run.failed', 'run.cancelled', 'run.timed_out', 'run.retried',
        'approval.rejected', 'approval.expired', 'lease.released', 'lease.expired'
      )
      OR (e.type IN ('tool.requested', 'approval.requested') AND e.token IS NULL)
    )
  ORDER BY e.version LIMIT 1
) AS closing
LEFT JOIN LATERAL (
  SELECT p.body FROM ledger.payload AS p
  WHERE p.project_id = $1 AND p.run_id = closing.run_id AND p.version = closing.version OFFSET 0
) AS payload ON true
WHERE closing.actor = acquired.worker_id
"""


class Ending(NamedTuple):
    """What an end consists of: two that are equal are the same command."""

    what: str
    """The state of a transition, or the type of a requeueing event."""
    error_code: str | None
    body: str | None
    cost: Decimal
    steps: int
    output_sha256: bytes | None


class Closing(NamedTuple):
    """The event by which a holder ended its lease."""

    receipt: Receipt
    ending: Ending


async def closings(
    source: Pool | Connection, project_id: str, leases: Sequence[tuple[UUID, int]]
) -> dict[UUID, Closing]:
    """Return how the leases ended that their own holders ended, by run."""
    if not leases:
        return {}
    rows = await fetch(source, _CLOSINGS, project_id, *columns(leases))
    return {
        row["run_id"]: Closing(
            Receipt(row["run_id"], row["version"], row["hash"]),
            Ending(
                row["state"] if row["state"] != "pending" else row["type"],
                row["error_code"],
                row["body"],
                row["cost_usd"] or Decimal(0),
                row["step_count"] or 0,
                row["output_sha256"],
            ),
        )
        for row in rows
    }
