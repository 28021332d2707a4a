"""Integrity: what the ledger proves, and the check of a run."""

from __future__ import annotations

from typing import Final

from fastapi.responses import Response

from runfold.console.web.callers import Callers
from runfold.console.web.pages.counts import counted
from runfold.console.web.pages.viewing import ReadViewer, page, router
from runfold.ledger import verified
from runfold.ledger.postgres.connections import fetch

_NEWEST: Final = """
SELECT run_id, version, hash, updated_at FROM ledger.run_state
WHERE project_id = $1 ORDER BY run_id DESC LIMIT 1
"""
pages = router()


@page(pages, "/p/{project}/integrity")
async def integrity(viewer: ReadViewer, run: str = "") -> Response:
    """Show what the ledger proves, and check the run that is named."""
    ledger = viewer.ledger
    newest = await fetch(ledger.pool, _NEWEST, ledger.project_id)
    report = None
    if run:
        checked = await ledger.get(run.strip())
        callers: Callers = viewer.request.app.state.callers
        # By the server's login, in its own snapshot: a token is presented to single statements.
        report = await callers.of_server(ledger.project_id).verify(checked.run_id)
    # Only counts, so readers see them, too, who may not see the control history.
    last = await verified.last(viewer.request.app.state.callers.own.pool, ledger.project_id)
    counts = await counted(ledger)
    data = {
        "run": run,
        "report": report,
        "newest": dict(newest[0]) if newest else None,
        "last_verify": last,
        "runs": None if counts is None else sum(counts.numbers.values()),
    }
    return viewer.page("integrity.html", data)
