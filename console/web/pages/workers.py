"""Workers and their leases, with those that end first at the top, and refused writes."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final
from urllib.parse import urlencode
from uuid import UUID

from fastapi import Query
from fastapi.responses import Response

from runfold.console.shared.worker_queries import held_runs, holders, refused_writes
from runfold.console.web.pages.viewing import ReadViewer, page, router
from runfold.ledger.months import FIRST_RUN
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.validation import check_instant

MOST: Final = 100
"""Leases on a page."""
HOLDERS: Final = 200
REFUSALS: Final = 50
HELD: Final = 20_000
"""Leases that a page looks through."""
_LEASES: Final = f"""
SELECT held.*, held.lease_until < ledger.now() AS expired FROM ({held_runs(HELD)}) AS held
WHERE $2::timestamptz IS NULL OR (held.lease_until, held.run_id) > ($2, $3::uuid)
ORDER BY held.lease_until, held.run_id LIMIT {MOST + 1}
"""
_HOLDERS: Final = holders(HELD, HOLDERS)
_REFUSALS: Final = refused_writes(REFUSALS)
pages = router()


@page(pages, "/p/{project}/workers", csv=True)
async def workers(
    viewer: ReadViewer,
    after: datetime | None = None,
    run: Annotated[UUID | None, Query()] = None,
) -> Response:
    """List the workers and their leases, with those that end first at the top."""
    if after is not None:
        check_instant("after", after)
    pool, project = viewer.ledger.pool, viewer.ledger.project_id
    start = run or FIRST_RUN
    rows = [dict(row) for row in await fetch(pool, _LEASES, project, after, start)]
    leases, more = rows[:MOST], rows[MOST:]
    workers_ = [dict(row) for row in await fetch(pool, _HOLDERS, project)]
    refused = [dict(row) for row in await fetch(pool, _REFUSALS, project)]
    onward = None
    if more:
        last = leases[-1]
        onward = urlencode({"after": last["lease_until"].isoformat(), "run": last["run_id"]})
    return viewer.page(
        "workers.html",
        {"leases": leases, "workers": workers_, "refusals": refused, "onward": onward},
        rows=leases,
        paged=after is not None,
        most=REFUSALS,
        holders=HOLDERS,
    )
