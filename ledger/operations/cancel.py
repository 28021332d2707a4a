"""Cancel: end a run before its time. The statement is `ledger/sql/operations/cancel.sql`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from runfold.ledger import names
from runfold.ledger.errors import LedgerError
from runfold.ledger.lifecycle import State
from runfold.ledger.operations.project import Project
from runfold.ledger.operations.refusal import look, refusal
from runfold.ledger.payload import encode_payload
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.run import Run
from runfold.ledger.validation import check_reason, check_run_id

CANCEL: Final = (
    "SELECT run.* FROM ledger.cancel($1, $2, $3, $4) AS cancelled"
    " CROSS JOIN LATERAL ledger.read_run($1, cancelled.run_id) AS run"
)


async def cancel(
    project: Project, run_id: UUID | str, *, actor: str | None, reason: str | None
) -> Run:
    """Cancel the run; see `Ledger.cancel`."""
    checked = check_run_id(run_id)
    [outcome] = (await cancel_many(project, [checked], actor=actor, reason=reason)).values()
    if isinstance(outcome, LedgerError):
        raise outcome
    if outcome.is_terminal:
        project.log().info(
            names.STATE_TRANSITION, run_id=str(checked), to_state=outcome.state.value
        )
    return outcome


async def cancel_many(
    project: Project, run_ids: Sequence[UUID], *, actor: str | None, reason: str | None
) -> dict[UUID, Run | LedgerError]:
    """Cancel at most 10,000 runs; return each as it is then, or the error that refused it."""
    body = encode_payload({"reason": check_reason(reason)}, project.rules)
    who = project.actor_or_default(actor)
    rows = await fetch(project.pool, CANCEL, project.project_id, who, list(run_ids), body)
    done = {row["run_id"]: Run.from_row(row) for row in rows}
    left = [run_id for run_id in run_ids if run_id not in done]
    refusals = await look(
        project.pool, project.project_id, who, "cancel", [(each, None, None) for each in left]
    )
    return {
        run_id: done.get(run_id)
        or refusal(project.project_id, run_id, refusals.get(run_id), State.CANCELLED)
        for run_id in run_ids
    }
