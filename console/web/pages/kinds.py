"""Kinds of runs and schedules: what is paused, limited and due."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import Depends, Form
from fastapi.responses import RedirectResponse, Response

from runfold.console.web.pages.viewing import ReadViewer, Viewer, page, router, viewing
from runfold.ledger.errors import InvalidValue

Admin = Annotated[Viewer, Depends(viewing("admin"))]
pages = router()


@page(pages, "/p/{project}/kinds", csv=True)
async def kinds(viewer: ReadViewer) -> Response:
    """List kinds and schedules."""
    listed = await viewer.ledger.kinds()
    due = await viewer.ledger.schedules()
    rows = [{name: getattr(kind, name) for name in kind.__slots__} for kind in listed]
    due = sorted(due, key=lambda schedule: schedule.next_at)
    soonest = {each.kind: each.next_at for each in reversed(due) if not each.is_paused}
    data = {"kinds": listed, "schedules": due}
    return viewer.page("kinds.html", data, rows=rows, soonest=soonest)


@pages.post("/p/{project}/kinds")
async def change(
    viewer: Admin,
    kind: Annotated[str, Form()],
    change: Annotated[Literal["pause", "resume", "limit"], Form()],
    reason: Annotated[str, Form()] = "",
    max_running: Annotated[Literal[""] | int, Form()] = "",
) -> Response:
    """Pause, resume or limit a kind, on record; no number lifts the limit."""
    if not reason.strip():
        raise InvalidValue("reason", reason, "is needed: it is kept in the kind's history")
    ledger = viewer.ledger
    if change == "limit":
        limit = None if max_running == "" else max_running
        await ledger.limit_kind(kind, limit, reason=reason)
    else:
        order = ledger.pause_kind if change == "pause" else ledger.resume_kind
        await order(kind, reason=reason)
    return RedirectResponse(f"{viewer.base}/kinds", HTTPStatus.SEE_OTHER)
