"""Projections: their lag, their errors, and what they have set aside."""

from __future__ import annotations

from fastapi.responses import Response

from runfold.console.shared.projection_modules import declared_projections
from runfold.console.web.api.projections import for_project
from runfold.console.web.pages.viewing import ReadViewer, page, router
from runfold.projections.declared.status import statuses

pages = router()


@page(pages, "/p/{project}/projections", csv=True)
async def projections(viewer: ReadViewer) -> Response:
    """List the projections; the run where one stopped is named to its own project only."""
    ledger = viewer.ledger
    declared = {one.name: one for one in declared_projections(None)}
    found = [
        for_project(ledger.project_id, status) for status in await statuses(ledger.pool, declared)
    ]
    rows = [{name: getattr(status, name) for name in status.__slots__} for status in found]
    return viewer.page("projections.html", {"projections": found}, rows=rows)
