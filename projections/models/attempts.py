"""One row for each attempt at a run: who held it, when, how it ended, its longest silence."""

from __future__ import annotations

from typing import Final

from runfold.projections.algebra.operation import assign, count, first, greatest, last, total
from runfold.projections.algebra.source import Source
from runfold.projections.declared.projection import Projection
from runfold.projections.declared.sources import of_lease, since

ENDS: Final = frozenset(
    {
        "lease.expired", "lease.released", "run.retried", "run.completed", "run.failed",
        "run.cancelled", "run.timed_out", "approval.rejected", "approval.expired",
    }
)  # fmt: skip
_SIGNS: Final = frozenset({"lease.acquired", "lease.heartbeat"})


def _at_end(column: str, type_: str) -> Source:
    """Read what an end says; an attempt that goes on after a wait has no end any more."""
    return Source(f"CASE WHEN event.type <> 'lease.acquired' THEN event.{column} END", type_)


ATTEMPTS: Final = Projection(
    "attempts",
    key={"project_id": "project_id", "run_id": "run_id", "attempt": of_lease("attempt")},
    columns={
        "worker_id": last("worker_id", {"lease.acquired"}),
        "leases": count({"lease.acquired"}),
        "started_at": first("recorded_at", {"lease.acquired"}),
        "ended_at": assign(_at_end("recorded_at", "timestamptz"), ENDS | {"lease.acquired"}),
        "outcome": assign(_at_end("type", "text"), ENDS | {"lease.acquired"}),
        "error_code": assign(_at_end("error_code", "text"), ENDS | {"lease.acquired"}),
        "beats": count({"lease.heartbeat"}),
        "longest_gap": greatest(since(_SIGNS), ENDS | {"lease.heartbeat"}),
        "cost_usd": total("cost_usd").where(present="cost_usd"),
        "step_count": total("step_count").where(present="step_count"),
    },
)
