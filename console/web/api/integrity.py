"""Integrity: the check of hash chains, payloads and states against their events."""

from __future__ import annotations

import asyncio
from typing import Final

from fastapi import APIRouter, Request

from runfold.console.shared.plain import jsonable
from runfold.console.web.api.shapes import RunId, Shown
from runfold.console.web.callers import Auditor, Callers, Reader
from runfold.ledger import Ledger, verified
from runfold.ledger.errors import InvalidValue
from runfold.ledger.postgres.clock import ledger_now
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.proof.bundle import evidence
from runfold.ledger.reading.report import Report
from runfold.ledger.reading.verify import EVENTS

router = APIRouter(tags=["integrity"])
MAX_PROOF: Final = 10_000
"""Events of a run, at most, whose proof is given in one answer."""
_CONTROL_HEAD: Final = """
SELECT number, recorded_at, type, hash FROM ledger.control_event
WHERE project_id = $1 ORDER BY number DESC LIMIT 1
"""
_MEANING: Final = {
    "proves": "that what it commits to was not changed since somebody else noted this hash",
    "does_not_prove": "when it was recorded, or that no other events were: nobody else signs it",
}
_ONE_AT_A_TIME: Final = asyncio.Semaphore(1)
"""A check of a whole project reads all of it."""


@router.get("/runs/{run_id}/verify", operation_id="verify_run")
async def verify_run(request: Request, ledger: Reader, run_id: RunId) -> Shown:
    """Check one run. Needs the right read."""
    report = await _report(request, ledger, run_id)
    return {"ok": report.ok, **jsonable(report)}


@router.post("/integrity/verify", operation_id="verify")
async def verify(request: Request, ledger: Auditor) -> Shown:
    """Check every run of the project, on record. Needs audit.

    The time that it takes grows with the project.
    """
    async with _ONE_AT_A_TIME:
        began_at = await ledger_now(ledger.pool)
        report = await _report(request, ledger, None)
        await verified.note(ledger.project, report, began_at)
    return {"ok": report.ok, **jsonable(report)}


@router.get("/runs/{run_id}/head", operation_id="run_head")
async def run_head(ledger: Reader, run_id: RunId) -> Shown:
    """Read the hash of a run's last event, which commits to all before it. Needs read.

    Kept elsewhere, it tells a later reader whether these events were changed or cut.
    """
    run = await ledger.get(run_id)
    [last] = await ledger.history(run_id, after=run.version - 1, limit=1)
    return {"run_id": run_id, "version": last.version, "head": jsonable(last.hash), **_MEANING}


@router.get("/runs/{run_id}/proof", operation_id="run_proof")
async def run_proof(ledger: Auditor, run_id: RunId) -> Shown:
    """Read all that a run's hashes commit to, salts too, as `runfold export` writes it.

    `runfold verify --bundle` checks it. Needs audit; the server's login needs runfold_auditor.
    """
    run = await ledger.get(run_id)
    if run.version > MAX_PROOF:
        remedy = f"has more than {MAX_PROOF:,} events: use `runfold export`"
        raise InvalidValue("run", run_id, remedy)
    rows = await fetch(ledger.pool, EVENTS, ledger.project_id, run.run_id, run.run_id)
    if not rows:
        raise InvalidValue("run", run_id, "is archived: use `runfold export`, which reads archives")
    return evidence(ledger.project_id, run.run_id, rows)


@router.get("/integrity/head", operation_id="head")
async def head(ledger: Auditor) -> Shown:
    """Read the last hash of the project's control history, which has its orders. Needs audit.

    Each run has a chain of its own: `/v1/runs/{run_id}/head`. No hash covers all runs yet.
    """
    rows = await fetch(ledger.pool, _CONTROL_HEAD, ledger.project_id)
    last = jsonable(dict(rows[0])) if rows else None
    return {"project": ledger.project_id, "control": last, **_MEANING}


async def _report(request: Request, ledger: Ledger, run_id: str | None) -> Report:
    # By the server's login, in snapshots of its own: a token is presented to single statements.
    callers: Callers = request.app.state.callers
    return await callers.of_server(ledger.project_id).verify(run_id)
