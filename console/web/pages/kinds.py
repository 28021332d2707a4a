"""Kinds of runs and schedules: what is paused, limited and due."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import Depends, Form
from fastapi.responses import RedirectResponse, Response

from runfold.console.web.pages.viewing import ReadViewer, Viewer, page, router, viewing
from runfold.ledger.errors import InvalidValue

Admin = Annotated[Viewer, Depends(viewing("admin"))]
Scheduler = Annotated[Viewer, Depends(viewing("schedule"))]
pages = router()


@page(pages, "/p/{project}/kinds", csv=True)
async def kinds(viewer: ReadViewer) -> Response:
    """List kinds and schedules."""
    listed = await viewer.ledger.kinds()
    due = await viewer.ledger.schedules()
    due = sorted(due, key=lambda schedule: schedule.next_at)
    soonest = {
        each.kind: each.next_at for each in reversed(due) if not (each.is_paused or each.is_orphan)
    }
    data = {"kinds": listed, "schedules": due}
    return viewer.page("kinds.html", data, rows=listed, soonest=soonest)


@pages.post("/p/{project}/kinds")
async def change(
    viewer: Admin,
    kind: Annotated[str, Form()],
    change: Annotated[Literal["pause", "resume", "limit"], Form()],
    reason: Annotated[str, Form()] = "",
    max_running: Annotated[Literal[""] | int, Form()] = "",
) -> Response:
    """Pause, resume or limit a kind, on record; an empty number lifts the limit."""
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


@pages.post("/p/{project}/schedules")
async def change_schedule(
    viewer: Scheduler,
    name: Annotated[str, Form()],
    change: Annotated[Literal["pause", "resume", "run"], Form()],
    reason: Annotated[str, Form()] = "",
) -> Response:
    """Pause or resume a schedule, or submit its run now, on record."""
    ledger = viewer.ledger
    if change == "run":
        run = await ledger.run_schedule(name, reason=reason)
        return RedirectResponse(f"{viewer.base}/runs/{run.run_id}", HTTPStatus.SEE_OTHER)
    order = ledger.pause_schedule if change == "pause" else ledger.resume_schedule
    await order(name, reason=reason)
    return RedirectResponse(f"{viewer.base}/kinds#schedules", HTTPStatus.SEE_OTHER)
