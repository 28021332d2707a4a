"""Projections: their lag and their errors."""

from __future__ import annotations

from dataclasses import replace

from fastapi import APIRouter

from runfold.console.shared.plain import jsonable
from runfold.console.shared.projection_modules import declared_projections
from runfold.console.web.api.shapes import Shown
from runfold.console.web.callers import Reader
from runfold.projections.declared.status import Status, statuses

router = APIRouter(tags=["projections"])


@router.get("/projections", operation_id="projections")
async def projections(ledger: Reader) -> Shown:
    """List the projections with their lag and their errors. Needs the right read.

    A projection covers all projects; the run where it stopped is named to its own project only.
    """
    declared = {projection.name: projection for projection in declared_projections(None)}
    known = await statuses(ledger.pool, declared)
    return {"projections": [jsonable(for_project(ledger.project_id, status)) for status in known]}


def for_project(project_id: str, status: Status) -> Status:
    """Return a status as a project may see it: without the run of another project."""
    if status.project_id in {None, project_id}:
        return status
    return replace(
        status, error="another project's", project_id=None, run_id=None, event_version=None
    )
