"""Projections: their lag, their errors, what they have set aside, and rebuilds with progress."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import Depends, Form
from fastapi.responses import RedirectResponse, Response

from runfold.console.shared.projection_modules import declared_projections
from runfold.console.web.api.projections import for_project
from runfold.console.web.callers import Callers
from runfold.console.web.pages.viewing import ReadViewer, Viewer, page, router, viewing
from runfold.console.web.rebuilds import Rebuilds
from runfold.ledger.errors import InvalidValue
from runfold.projections.declared.exchange import Order
from runfold.projections.declared.refold import note_order
from runfold.projections.declared.status import statuses, unfinished

Rebuilder = Annotated[Viewer, Depends(viewing("admin", everywhere=True))]
pages = router()


@page(pages, "/p/{project}/projections", csv=True)
async def projections(viewer: ReadViewer) -> Response:
    """List the projections; the run where one stopped is named to its own project only."""
    ledger = viewer.ledger
    rebuilds: Rebuilds = viewer.request.app.state.rebuilds
    declared = {projection.name: projection for projection in declared_projections(None)}
    shown = [
        for_project(ledger.project_id, status) for status in await statuses(ledger.pool, declared)
    ]
    begun = {each.name: rebuilds.find(each.name) for each in shown}
    folded = {name for name, each in declared.items() if each.apply is None}
    elsewhere = {
        each.projection: each
        for each in await unfinished(ledger.pool)
        if not rebuilds.is_running(each.projection)
    }
    data = {"projections": shown, "rebuilds": begun, "elsewhere": elsewhere}
    return viewer.page("projections.html", data, rows=shown, folded=folded)


@pages.post("/p/{project}/projections")
async def rebuild(
    viewer: Rebuilder,
    name: Annotated[str, Form(max_length=200)],
    reason: Annotated[str, Form()] = "",
) -> Response:
    """Begin to fold a projection again in a second table, which is compared and swapped in.

    The order is on record with its reason before anything is done, and the swap once it is done. A
    rebuild is of all projects, so it takes admin in all of them; the server's login does it.
    """
    declared = {projection.name: projection for projection in declared_projections(None)}
    if name not in declared:
        raise InvalidValue("name", name, "is not a projection that this server declares")
    callers: Callers = viewer.request.app.state.callers
    rebuilds: Rebuilds = viewer.request.app.state.rebuilds
    order = Order(viewer.ledger.actor, reason)
    if not rebuilds.is_running(name):
        await note_order(viewer.ledger.pool, declared[name], order)
        rebuilds.begin(callers.own.pool, declared[name], order)
    return RedirectResponse(f"{viewer.base}/projections", HTTPStatus.SEE_OTHER)
