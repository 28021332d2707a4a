"""The inline projection: the state of every run, folded by the statement that appends."""

from __future__ import annotations

from typing import Final

from runfold.projections.algebra.fold import Fold
from runfold.projections.algebra.operation import assign, first, greatest, last, once, total

SUBMITTED: Final = {"run.submitted"}
ENDED: Final = {
    "run.completed",
    "run.failed",
    "run.cancelled",
    "run.timed_out",
    "approval.rejected",
    "approval.expired",
}
REQUEUED: Final = {"lease.released", "lease.expired", "run.retried"}
WAITED: Final = {
    "tool.requested",
    "tool.completed",
    "tool.failed",
    "approval.requested",
    "approval.signed",
    "approval.granted",
    "approval.lapsed",
}
LEASED: Final = {"lease.acquired"} | WAITED | REQUEUED | ENDED
"""Every type that restates the lease as it is after the event."""
OUTCOME: Final = ENDED | {"lease.expired", "run.retried"}
"""Every type that says how an attempt or the run ended."""
BEATEN: Final = {"lease.acquired", "lease.heartbeat"}
"""Every type by which the holder of a lease shows that it is alive."""
EXTENDED: Final = LEASED | BEATEN
"""Every type that says until when the lease is held."""
COUNTED: Final = {"lease.acquired", "lease.released", "lease.expired"}
"""Every type that may say how many attempts were used."""

TYPE_SETS: Final = {
    "leased": LEASED,
    "extended": EXTENDED,
    "ended": ENDED,
    "outcome": OUTCOME,
    "beaten": BEATEN,
    "counted": COUNTED,
}
"""The sets of types by the names that they have in the compiled SQL."""

TABLE: Final = "run_state"
KEY: Final = ("project_id", "run_id")

COLUMNS: Final[dict[str, Fold]] = {
    "version": greatest("version"),
    "hash": last("hash"),
    "kind": once("kind", SUBMITTED),
    "state": last("state"),
    "priority": once("priority", SUBMITTED),
    "attempt_count": last("attempt", COUNTED, default=0),
    "max_attempts": once("max_attempts", SUBMITTED),
    "worker_id": assign("worker_id", LEASED),
    "token": assign("token", LEASED),
    "lease_credential": last("credential", {"lease.acquired"}),
    "moved_position": last("position", LEASED),
    "lease_until": assign("lease_until", EXTENDED),
    "heartbeat_at": last("recorded_at", BEATEN),
    "available_at": assign("available_at", LEASED | SUBMITTED),
    "started_at": first("recorded_at", {"lease.acquired"}),
    "completed_at": last("recorded_at", ENDED),
    "created_at": once("recorded_at", SUBMITTED),
    "updated_at": last("recorded_at"),
    "deadline": once("deadline", SUBMITTED),
    "wait_until": assign("wait_until", LEASED),
    "wait_outcome": assign("wait_outcome", LEASED),
    "approvals": assign("approvals", LEASED),
    "approved": assign("approved", LEASED),
    "cancel_requested_at": first("recorded_at", {"cancel.requested"}),
    "cost_usd": total("cost_usd"),
    "step_count": total("step_count"),
    "error_code": assign("error_code", OUTCOME),
    "outcome_version": last("version", OUTCOME),
    "output_sha256": assign("output_sha256", ENDED),
    "tags": once("tags", SUBMITTED),
    "key": once("key", SUBMITTED),
}
"""Every column of `run_state` besides its key: how it is folded from the run's events."""
