"""Kinds of runs and schedules: what is paused, limited and due."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import Depends, Form
from fastapi.responses import RedirectResponse, Response

from runfold.console.web.pages.viewing import ReadViewer, Viewer, page, router, viewing

Admin = Annotated[Viewer, Depends(viewing("admin"))]
pages = router()


@page(pages, "/p/{project}/kinds", csv=True)
async def kinds(viewer: ReadViewer) -> Response:
    """List kinds and schedules."""
    found = await viewer.ledger.kinds()
    due = await viewer.ledger.schedules()
    rows = [{name: getattr(kind, name) for name in kind.__slots__} for kind in found]
    return viewer.page("kinds.html", {"kinds": found, "schedules": due}, rows=rows)


@pages.post("/p/{project}/kinds")
async def change(
    viewer: Admin,
    kind: Annotated[str, Form()],
    change: Annotated[Literal["pause", "resume"], Form()],
    reason: Annotated[str, Form()] = "",
) -> Response:
    """Pause or resume a kind, on record."""
    ledger = viewer.ledger
    order = ledger.pause_kind if change == "pause" else ledger.resume_kind
    await order(kind, reason=reason or None)
    return RedirectResponse(f"{viewer.base}/kinds", HTTPStatus.SEE_OTHER)
