"""Integrity: the check of hash chains, payloads and states against their events."""

from __future__ import annotations

import asyncio
from typing import Final

from fastapi import APIRouter, Request

from runfold.console.shared.plain import jsonable
from runfold.console.web.api.shapes import RunId, Shown
from runfold.console.web.callers import Auditor, Callers, Reader
from runfold.ledger import Ledger

router = APIRouter(tags=["integrity"])
_ONE_AT_A_TIME: Final = asyncio.Semaphore(1)
"""A check of a whole project reads all of it."""


@router.get("/runs/{run_id}/verify", operation_id="verify_run")
async def verify_run(request: Request, ledger: Reader, run_id: RunId) -> Shown:
    """Check one run. Needs the right read."""
    return await _verified(request, ledger, run_id)


@router.post("/integrity/verify", operation_id="verify")
async def verify(request: Request, ledger: Auditor) -> Shown:
    """Check every run of the project; it takes as long as the project is large. Needs audit."""
    async with _ONE_AT_A_TIME:
        return await _verified(request, ledger, None)


async def _verified(request: Request, ledger: Ledger, run_id: str | None) -> Shown:
    # In snapshots of the server's own: a token is presented to single statements.
    callers: Callers = request.app.state.callers
    report = await callers.of_server(ledger.project_id).verify(run_id)
    return {"ok": report.ok, **jsonable(report)}
