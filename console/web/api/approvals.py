"""Approvals: what waits for a person, and the decision on exactly that."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import Field

from runfold.console.shared.approval_requests import pending_requests
from runfold.console.shared.inbox import change_inbox
from runfold.console.shared.plain import jsonable
from runfold.console.web.api.shapes import Body, Instant, Key, RunId, Shown, shown, version_of
from runfold.console.web.callers import Decider, Reader
from runfold.console.web.read_log import reads_of
from runfold.ledger.events import ApprovalRequested
from runfold.ledger.validation import check_run_id

router = APIRouter(tags=["approvals"])
MAX_APPROVALS: Final = 1_000
RequestVersion = Annotated[
    str,
    Header(
        alias="If-Match",
        description="The version of the request that was read, as an ETag; 409 for another one.",
    ),
]


class Decision(Body):
    """What a person decides about a request."""

    decision: Literal["approve", "reject"]
    shown_sha256: Annotated[
        str | None,
        Field(
            pattern="^[0-9a-f]{64}$",
            description="The digest of what the person was shown, from the list of approvals;"
            " 409 for another one.",
        ),
    ] = None
    reason: str | None = None
    meaning: str | None = None
    output: Any = None


class Snooze(Body):
    """How long a person does not want to see a request."""

    until: Instant | None = Field(
        description="At most 90 days away, and before the request lapses; null puts it back."
    )


@router.get("/approvals", operation_id="approvals")
async def approvals(
    request: Request, ledger: Reader, limit: Annotated[int, Query(ge=1, le=MAX_APPROVALS)] = 100
) -> Shown:
    """List the approvals that runs wait for, the oldest first. Needs the right read."""
    requests = await pending_requests(ledger, limit)
    await reads_of(request).note_runs(request, ledger, [each.run_id for each in requests])
    return {"approvals": [jsonable(each) for each in requests]}


@router.post("/runs/{run_id}/snooze", operation_id="snooze")
async def snooze(
    ledger: Decider, run_id: RunId, body: Snooze, *, if_match: RequestVersion
) -> Shown:
    """Keep the request that If-Match names out of a person's inbox. Needs the right decide.

    It is a setting of the person, not an event of the run.
    """
    version = version_of(if_match) or 0
    run = check_run_id(run_id)
    changed = await change_inbox(ledger, run, version, body.until, actor=body.actor)
    return {"run_id": run_id, "version": version, "until": jsonable(body.until), "changed": changed}


@router.post("/runs/{run_id}/decision", operation_id="decide")
async def decide(
    ledger: Decider,
    run_id: RunId,
    body: Decision,
    response: Response,
    *,
    if_match: RequestVersion,
    key: Key = None,
) -> Shown:
    """Decide on the request that If-Match names, and on no other. Needs the right decide.

    A decision that comes late, twice or from somebody who may not decide is refused, on record.
    """
    request = ApprovalRequested(
        run_id=check_run_id(run_id),
        version=version_of(if_match) or 0,
        shown_sha256=body.shown_sha256,
    )
    actor = body.actor if body.actor is not None else ledger.actor
    facts: dict[str, Any] = {
        "actor": actor, "reason": body.reason, "meaning": body.meaning, "key": key,
    }  # fmt: skip
    if body.decision == "approve":
        return shown(await ledger.approve(request, **facts, output=body.output), response)
    return shown(await ledger.reject(request, **facts), response)
