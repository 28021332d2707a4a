"""Bulk actions by query: first the count and the consequence, then, with a reason, the act."""

from __future__ import annotations

import secrets
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import Depends, Form
from fastapi.responses import RedirectResponse, Response
from starlette.exceptions import HTTPException

from runfold.console.shared.bulk import ACTIONS, Action, bulk_of, preview
from runfold.console.web.pages.viewing import ReadViewer, Viewer, page, router, viewing
from runfold.console.web.running_bulks import SHOWN, RunningBulk, RunningBulks
from runfold.ledger.errors import InvalidValue
from runfold.ledger.validation import check_reason

Submitting = Annotated[Viewer, Depends(viewing("submit"))]
CONSEQUENCES: Final = {
    "cancel": "Pending and parked runs end at once as cancelled, for good. The worker of a held run"
    " learns of it with its next heartbeat.",
    "rerun": "Each run is submitted again as a new run with the same kind, input, priority,"
    " attempts and tags, linked to the old one. A run has one rerun: one that was rerun before"
    " stays as it is.",
}
_KEY: Final = "^[A-Za-z0-9_-]{16,64}$"
pages = router()


@page(pages, "/p/{project}/bulk")
async def bulk(
    viewer: ReadViewer, _: Submitting, q: str = "", action: Action = "cancel"
) -> Response:
    """Show how many runs a bulk would act on, the first of them, and what would happen."""
    counted = None
    if q.strip():
        counted = await preview(viewer.ledger, await bulk_of(viewer.ledger, action, q))
    return viewer.page(
        "bulk.html",
        {"action": action, "query": q, "preview": counted},
        number=None if counted is None else counted.in_words,
        consequence=CONSEQUENCES[action],
        actions=ACTIONS,
        key=secrets.token_urlsafe(16),
    )


@pages.post("/p/{project}/bulk")
async def begin(
    viewer: Submitting,
    _: ReadViewer,
    *,
    action: Annotated[str, Form()],
    q: Annotated[str, Form()],
    moment: Annotated[datetime, Form()],
    key: Annotated[str, Form(pattern=_KEY)],
    reason: Annotated[str, Form()] = "",
) -> Response:
    """Begin the bulk that was shown; the same form sent twice begins it once."""
    if not reason.strip():
        raise InvalidValue("reason", reason, "is needed: it is recorded with every run")
    chosen = await bulk_of(viewer.ledger, action, q, moment)
    running = _bulks(viewer).begin(key, viewer.ledger, chosen, check_reason(reason) or "")
    return RedirectResponse(f"{viewer.base}/bulk/{running.key}", HTTPStatus.SEE_OTHER)


@page(pages, "/p/{project}/bulk/{key}")
async def progress(viewer: ReadViewer, key: str) -> Response:
    """Show how far a bulk is, and what became of each run."""
    running = _running(viewer, key)
    facts = {
        "bulk": running.bulk, "reason": running.reason, "by": running.actor,
        "begun_at": running.begun_at, "ended_at": running.ended_at, "done": running.done,
        "refused": running.refused, "error": running.error, "aborted": running.is_aborted,
        "refusals": running.refusals, "outcomes": running.outcomes,
    }  # fmt: skip
    return viewer.page("bulk_progress.html", facts, shown=SHOWN, key=key)


@pages.post("/p/{project}/bulk/{key}/abort")
async def abort(viewer: Submitting, key: str) -> Response:
    """Stop a bulk after its current batch; what is done stays done."""
    _running(viewer, key).is_aborted = True
    return RedirectResponse(f"{viewer.base}/bulk/{key}", HTTPStatus.SEE_OTHER)


def _bulks(viewer: Viewer) -> RunningBulks:
    bulks: RunningBulks = viewer.request.app.state.bulks
    return bulks


def _running(viewer: Viewer, key: str) -> RunningBulk:
    running = _bulks(viewer).find(viewer.ledger.project_id, key)
    if running is None:
        raise HTTPException(
            HTTPStatus.NOT_FOUND,
            "this server knows no such bulk, or has forgotten it: what was done is in the histories"
            " of the runs, and beginning the bulk again does nothing twice",
        )
    return running
