"""Workers and the leases that they hold."""

from __future__ import annotations

from collections import Counter
from typing import Final

from fastapi.responses import Response

from runfold.console.web.pages.viewing import ReadViewer, page, router
from runfold.ledger.postgres.connections import fetch

MOST: Final = 500
"""Leases on the page."""
_LEASES: Final = f"""
SELECT s.worker_id, s.run_id, s.kind, s.state, s.token, s.attempt_count, s.max_attempts,
  s.lease_until, s.heartbeat_at, s.started_at, s.cancel_requested_at,
  s.lease_until < ledger.now() AS expired
FROM ledger.run_state AS s WHERE s.project_id = $1 AND s.token IS NOT NULL LIMIT {MOST}
"""
pages = router()


@page(pages, "/p/{project}/workers", csv=True)
async def workers(viewer: ReadViewer) -> Response:
    """List the leases, those that end first at the top, and who holds them."""
    ledger = viewer.ledger
    found = [dict(row) for row in await fetch(ledger.pool, _LEASES, ledger.project_id)]
    leases = sorted(found, key=lambda row: row["lease_until"])
    holders = Counter(row["worker_id"] for row in leases)
    return viewer.page(
        "workers.html", {"leases": leases, "workers": dict(sorted(holders.items()))},
        rows=leases, most=MOST,
    )  # fmt: skip
