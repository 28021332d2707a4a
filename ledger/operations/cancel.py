"""Cancel: call a run off. The statement is `ledger/sql/operations/cancel.sql`."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from runfold.ledger import names
from runfold.ledger.lifecycle import State
from runfold.ledger.operations.project import Project
from runfold.ledger.operations.refusal import look, refusal
from runfold.ledger.payload import encode_payload
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.run import Run
from runfold.ledger.validation import check_reason, check_run_id

CANCEL: Final = (
    "SELECT r.* FROM ledger.cancel($1, $2, $3, $4) AS t"
    " CROSS JOIN LATERAL ledger.read_run($1, t.run_id) AS r"
)


async def cancel(
    project: Project, run_id: UUID | str, *, actor: str | None, reason: str | None
) -> Run:
    """Call the run off; see `Ledger.cancel`."""
    checked = check_run_id(run_id)
    body = encode_payload({"reason": check_reason(reason)}, project.rules)
    who = project.actor_or_default(actor)
    rows = await fetch(project.pool, CANCEL, project.project_id, who, [checked], body)
    if not rows:
        refusals = await look(
            project.pool, project.project_id, who, "cancel", [(checked, None, None)]
        )
        raise refusal(project.project_id, checked, refusals.get(checked), State.CANCELLED)
    run = Run.from_row(rows[0])
    if run.is_terminal:
        project.log().info(names.STATE_TRANSITION, run_id=str(checked), to_state=run.state.value)
    return run
