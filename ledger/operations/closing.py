"""Closing: how a lease ended, if its own holder ended it.

The statement is `ledger/sql/operations/closings.sql`.

A lease is ended once, so its token is the idempotency key of its end: an end that is sent again,
because the answer to the first was lost, finds the first one's outcome. It needs no row in
`ledger.command`, and is not taken for the late write of a worker that lost its lease.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Final, NamedTuple
from uuid import UUID

from runfold.ledger.operations.columns import columns
from runfold.ledger.postgres.connections import Connection, Pool, fetch
from runfold.ledger.run import Receipt

CLOSINGS: Final = "SELECT * FROM ledger.closings($1, $2, $3)"


class Ending(NamedTuple):
    """What an end consists of: two that are equal are the same command."""

    what: str
    """The state of a transition, or the type of a requeueing event."""
    error_code: str | None
    body: str | None
    cost: Decimal
    steps: int
    output_sha256: bytes | None
    worker: str | None


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
    rows = await fetch(source, CLOSINGS, project_id, *columns(leases))
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
                row["worker_id"],
            ),
        )
        for row in rows
    }
