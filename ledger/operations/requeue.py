"""Requeue: a holder puts its run back to pending.

The statement is `ledger/sql/operations/requeue.sql`.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple
from uuid import UUID

from runfold.ledger import names
from runfold.ledger.arguments import check_lease, holder_of, identify_lease
from runfold.ledger.lifecycle import State
from runfold.ledger.operations.closing import Ending, closings
from runfold.ledger.operations.columns import columns
from runfold.ledger.operations.project import Project
from runfold.ledger.operations.refusal import look, refusal
from runfold.ledger.payload import encode_payload
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.reading.past import state_at
from runfold.ledger.run import Lease, Run
from runfold.ledger.validation import check_duration, check_text

RELEASED: Final = "lease.released"
RETRIED: Final = "run.retried"
REQUEUE: Final = (
    "SELECT run.* FROM ledger.requeue($1, $2, $3, $4, $5, $6, $7, $8) AS requeued"
    " CROSS JOIN LATERAL ledger.read_run($1, requeued.run_id) AS run"
)


class RequeueRow(NamedTuple):
    """The columns of `ledger.requeue` after project and type."""

    run_id: UUID
    token: int
    delay: timedelta
    error_code: str | None
    body: str | None
    worker: str | None


async def requeue(
    project: Project,
    type_: str,
    lease: Lease,
    *,
    delay: float | timedelta,
    error_code: str | None,
    error_detail: Any,
) -> Run:
    """Put the run back to pending by an event of `type_`; see `Ledger.release`, `Ledger.retry`."""
    body = encode_payload({"error_detail": error_detail}, project.rules)
    wait = check_duration("delay", delay)
    code = None if error_code is None else check_text("error_code", error_code)
    row = RequeueRow(*identify_lease(check_lease(lease)), wait, code, body, holder_of(lease))
    who = project.actor_of(lease, None)
    requeued = await fetch(project.pool, REQUEUE, project.project_id, type_, *columns([row]))
    if not requeued:
        if (first := await _first_ending(project, type_, row)) is not None:
            return first
        late = [(row.run_id, row.token, row.worker)]
        refusals = await look(project.pool, project.project_id, who, type_, late)
        raise refusal(
            project.project_id,
            row.run_id,
            refusals.get(row.run_id),
            State.PENDING,
            retry=type_ == RETRIED,
        )
    project.waker.wake()
    run = Run.from_row(requeued[0])
    project.log().info(
        names.STATE_TRANSITION,
        run_id=str(row.run_id),
        worker_id=lease.worker_id,
        attempt_count=lease.attempt,
        max_attempts=lease.max_attempts,
        to_state=run.state.value,
        error_code=code,
    )
    return run


async def _first_ending(project: Project, type_: str, row: RequeueRow) -> Run | None:
    """Return the run after this command, if it was sent before and has ended the lease already."""
    lease = (row.run_id, row.token)
    closed = await closings(project.pool, project.project_id, [lease])
    # A run that somebody had asked to cancel was cancelled instead.
    endings = [
        Ending(what, row.error_code, row.body, Decimal(0), 0, None, row.worker)
        for what in (type_, State.CANCELLED.value)
    ]
    if row.run_id not in closed or closed[row.run_id].ending not in endings:
        return None
    receipt = closed[row.run_id].receipt
    return await state_at(project.pool, project.project_id, receipt.run_id, receipt.version)
