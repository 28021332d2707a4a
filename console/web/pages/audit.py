"""The audit: the control history, which has every order, and the reads of content."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final
from uuid import UUID

from fastapi import Depends, Query
from fastapi.responses import Response

from runfold.console.web.pages.viewing import Viewer, page, router, viewing
from runfold.ledger import payload_reads
from runfold.ledger.control_history import ControlEvent

WINDOW: Final = 200
Auditor = Annotated[Viewer, Depends(viewing("audit"))]
AuditorOfAll = Annotated[Viewer, Depends(viewing("audit", everywhere=True))]
From = Annotated[int, Query(alias="from", ge=0, le=9_223_372_036_854_775_806)]
pages = router()


@page(pages, "/p/{project}/audit", csv=True)
async def audit(viewer: Auditor, *, after: From = 0) -> Response:
    """List the orders: kinds, roles, schedules, grants, archives."""
    listed = await viewer.ledger.control_history(after=after, limit=WINDOW)
    return _orders(viewer, listed, after, of_all=False)


@page(pages, "/p/{project}/audit/all", csv=True)
async def audit_of_all(viewer: AuditorOfAll, *, after: From = 0) -> Response:
    """List the orders that concern all projects: rebuilds, archives, tokens, upgrades, users."""
    listed = await viewer.ledger.control_history(after=after, everywhere=True, limit=WINDOW)
    return _orders(viewer, listed, after, of_all=True)


def _orders(
    viewer: Viewer, listed: Sequence[ControlEvent], after: int, *, of_all: bool
) -> Response:
    more = listed[-1].number if len(listed) == WINDOW else None
    data = {"orders": listed, "after": after, "more": more}
    return viewer.page("audit.html", data, rows=listed, of_all=of_all)


@page(pages, "/p/{project}/reads", csv=True)
async def reads(viewer: Auditor, *, run: UUID | None = None) -> Response:
    """List who read the content of which run, the newest first."""
    listed = await payload_reads.reads(viewer.ledger.project, run_id=run, limit=WINDOW)
    return viewer.page("reads.html", {"reads": listed, "run": run}, rows=listed, most=WINDOW)
