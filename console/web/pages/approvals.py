"""The approvals that runs wait for, and the decision on exactly what is shown."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any, Final, Literal

from fastapi import Depends, Form
from fastapi.responses import RedirectResponse, Response

from runfold.console.shared.approval_requests import (
    ApprovalRequest,
    pending_request,
    pending_requests,
    roles_of,
)
from runfold.console.web.pages.decisions import RUNS, decided
from runfold.console.web.pages.viewing import ReadViewer, Viewer, page, router, viewing
from runfold.ledger.errors import IllegalTransition
from runfold.ledger.events import ApprovalRequested
from runfold.ledger.validation import check_run_id

MOST: Final = 200
"""Requests on the page, the oldest first."""
EARLIER: Final = 5
"""Decisions on runs of the same kind that stand beside a request."""
Decider = Annotated[Viewer, Depends(viewing("decide"))]
pages = router()


@page(pages, "/p/{project}/approvals", csv=True)
async def approvals(
    viewer: ReadViewer, show: Literal["waiting", "decided"] = "waiting"
) -> Response:
    """List what waits for a person, the oldest first, or what was decided lately."""
    if show == "decided":
        past = await decided(viewer.ledger)
        return viewer.page("decided.html", {"decided": past}, rows=past, most=RUNS)
    requests = await pending_requests(viewer.ledger, MOST)
    roles = await roles_of(viewer.ledger, viewer.ledger.actor)
    shown = [_shown(request, viewer.ledger.actor, roles) for request in requests]
    rows = [{n: v for n, v in each.items() if n not in {"show", "approved_by"}} for each in shown]
    return viewer.page("approvals.html", {"approvals": shown}, rows=rows, most=MOST)


@page(pages, "/p/{project}/approvals/{run_id}/{version}")
async def approval(viewer: ReadViewer, run_id: str, version: int) -> Response:
    """Show one request in full, with the form that decides it and nothing else."""
    ledger = viewer.ledger
    run = await ledger.get(run_id)
    pending = await pending_request(ledger, run.run_id)
    if pending is None or pending.version != version:
        raise IllegalTransition(
            run.run_id, run.state, "decided", f"request #{version} is decided, or was replaced"
        )
    roles = await roles_of(ledger, ledger.actor)
    shown = _shown(pending, ledger.actor, roles)
    earlier = (await decided(ledger, run.kind, before=run.run_id))[:EARLIER]
    return viewer.page("approval.html", {"approval": shown, "earlier": earlier}, run=run)


@pages.post("/p/{project}/approvals/{run_id}/{version}")
async def decide(
    viewer: Decider,
    run_id: str,
    version: int,
    *,
    decision: Annotated[Literal["approve", "reject"], Form()],
    shown_sha256: Annotated[str, Form()] = "",
    reason: Annotated[str, Form()] = "",
    person: Annotated[str, Form()] = "",
) -> Response:
    """Decide the request that was shown; one that changed since is refused, and nothing happens."""
    ledger = viewer.ledger
    request = ApprovalRequested(
        run_id=check_run_id(run_id), version=version, shown_sha256=shown_sha256 or None
    )
    given: dict[str, Any] = {"actor": person or ledger.actor, "reason": reason or None}
    answer = ledger.approve if decision == "approve" else ledger.reject
    run = await answer(request, **given)
    return RedirectResponse(f"{viewer.base}/runs/{run.run_id}", HTTPStatus.SEE_OTHER)


def _shown(request: ApprovalRequest, actor: str, roles: set[str]) -> dict[str, Any]:
    facts = {name: getattr(request, name) for name in ApprovalRequest.__slots__}
    return {**facts, "bar": request.bars(actor, roles)}
