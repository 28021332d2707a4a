"""The overview: what is going on, from counts that a projection keeps; nothing here counts runs."""

from __future__ import annotations

from typing import Final

from fastapi.responses import Response

from runfold.console.shared.approval_requests import count_pending
from runfold.console.shared.worker_queries import held_runs
from runfold.console.web.pages.counts import counted
from runfold.console.web.pages.viewing import ReadViewer, page, router
from runfold.ledger.postgres.connections import fetch

FEW: Final = 10
_MOST: Final = 1_000
_LEASED: Final = f"""
SELECT count(*) AS held, count(*) FILTER (WHERE lease.lease_until < ledger.now()) AS expired
FROM ({held_runs(_MOST)}) AS lease
"""
pages = router()


@page(pages, "/p/{project}")
async def overview(viewer: ReadViewer) -> Response:
    """Show the project at a glance."""
    ledger = viewer.ledger
    counts = await counted(ledger)
    approvals = await count_pending(ledger, _MOST)
    failed = await ledger.search("state:failed,timeout", limit=FEW, content=False)
    pending = await ledger.search("state:pending", limit=FEW, content=False)
    [leases] = await fetch(ledger.pool, _LEASED, ledger.project_id)
    return viewer.page(
        "overview.html",
        {
            "counts": None if counts is None else counts.states(),
            "counted_at": None if counts is None else counts.changed_at,
            "waiting_approvals": approvals,
            "held": leases["held"],
            "expired": leases["expired"],
            "failed": failed,
            "pending": pending,
        },
        most=_MOST,
    )
