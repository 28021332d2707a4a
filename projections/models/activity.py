"""What each worker did: leases, beats, ends, what it lost, and when it was first and last seen."""

from __future__ import annotations

from typing import Final

from runfold.projections.algebra.operation import count, greatest, least, total
from runfold.projections.declared.projection import Projection
from runfold.projections.declared.sources import of_lease

_OWN: Final = frozenset(
    {"lease.acquired", "lease.heartbeat", "lease.released", "run.completed", "step.completed"}
)

WORKER_ACTIVITY: Final = Projection(
    "worker_activity",
    key={"project_id": "project_id", "worker_id": of_lease("worker_id")},
    columns={
        "leases": count({"lease.acquired"}),
        "beats": count({"lease.heartbeat"}),
        "completed": count({"run.completed"}),
        "retried": count({"run.retried"}),
        "lost": count({"lease.expired"}),
        "cost_usd": total("cost_usd").where(present="cost_usd"),
        "first_seen": least("recorded_at", {"lease.acquired"}),
        "last_seen": greatest("recorded_at", _OWN),
    },
)
