"""Bulk actions by query, batch by batch."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import Field

from runfold.console.shared.bulk import BATCH, Bulk, batch, bulk_of, preview
from runfold.console.shared.plain import jsonable
from runfold.console.web.api.runs import Reason
from runfold.console.web.api.shapes import Body, Instant, Shown
from runfold.console.web.callers import Reader, Submitter

router = APIRouter(prefix="/bulk", tags=["runs"])


class Chosen(Body):
    """An action, and the query of the runs that it is for."""

    action: str = Field(description="`cancel` or `rerun`.")
    query: str = Field(
        description="Without a state, `cancel` takes runs that have not ended, and `rerun` those"
        " that failed or timed out."
    )


class Act(Chosen, Reason):
    """One batch of a bulk."""

    moment: Instant | None = Field(
        None,
        description="The `moment` of the preview or of the batch before: only runs submitted"
        " before it.",
    )
    before: str | None = Field(None, description="The `older` of the batch before.")
    limit: int = Field(BATCH, ge=1, le=BATCH)


@router.post("/preview", operation_id="preview_bulk")
async def see(ledger: Reader, body: Chosen) -> Shown:
    """Count the runs that a bulk would act on, up to 10,000, and list the first. Needs read."""
    counted = await preview(ledger, await bulk_of(ledger, body.action, body.query))
    return {
        **_chosen(counted.bulk),
        "matching": counted.matching,
        "is_all": counted.is_all,
        "runs": [str(run.run_id) for run in counted.runs],
    }


@router.post("", operation_id="bulk")
async def act(ledger: Submitter, reader: Reader, body: Act) -> Shown:
    """Act on the next runs that fit, the newest first. Needs submit and read.

    `older` is the `before` of the next batch. A reason is needed. A batch that is sent again does
    nothing twice: each run is cancelled or rerun once.
    """
    chosen = await bulk_of(reader, body.action, body.query, body.moment)
    done = await batch(
        ledger, chosen, reason=body.reason, actor=body.actor, before=body.before, limit=body.limit
    )
    return {**_chosen(chosen), **jsonable(done)}


def _chosen(bulk: Bulk) -> dict[str, Any]:
    return dict(jsonable(bulk))
