"""Workers, the leases that they hold, those that end first at the top, and refused writes."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final
from urllib.parse import urlencode
from uuid import UUID

from fastapi import Query
from fastapi.responses import Response

from runfold.console.web.pages.viewing import ReadViewer, page, router
from runfold.ledger.errors import InvalidValue
from runfold.ledger.months import FIRST_RUN
from runfold.ledger.postgres.connections import fetch

MOST: Final = 100
"""Leases on a page."""
HOLDERS: Final = 200
REFUSALS: Final = 50
HELD: Final = 20_000
"""Leases that a page looks through."""
# No index has the end of a lease: each beat would have to move it. The held runs are as many as
# workers have slots, and an index has them by kind; OFFSET 0, so that no other is used.
_HELD: Final = f"""
SELECT s.* FROM (SELECT DISTINCT k.kind FROM ledger.kind AS k WHERE k.project_id = $1) AS kinds
CROSS JOIN LATERAL (
  SELECT s.worker_id, s.run_id, s.kind, s.state, s.token, s.attempt_count, s.max_attempts,
    s.lease_until, s.heartbeat_at, s.started_at, s.cancel_requested_at
  FROM ledger.run_state AS s
  WHERE s.project_id = $1 AND s.kind = kinds.kind AND s.token IS NOT NULL OFFSET 0) AS s
LIMIT {HELD}
"""
_LEASES: Final = f"""
SELECT held.*, held.lease_until < ledger.now() AS expired FROM ({_HELD}) AS held
WHERE $2::timestamptz IS NULL OR (held.lease_until, held.run_id) > ($2, $3::uuid)
ORDER BY held.lease_until, held.run_id LIMIT {MOST + 1}
"""
_HOLDERS: Final = f"""
SELECT held.worker_id, count(*) AS leases, min(held.lease_until) AS ends_first,
  count(*) FILTER (WHERE held.lease_until < ledger.now()) AS expired,
  max(held.heartbeat_at) AS heard_at
FROM ({_HELD}) AS held GROUP BY held.worker_id ORDER BY ends_first, held.worker_id LIMIT {HOLDERS}
"""
_REFUSALS: Final = f"""
SELECT e.run_id, e.version, e.recorded_at, e.worker_id, e.name, e.token, e.credential
FROM ledger.event AS e WHERE e.project_id = $1 AND e.type = 'write.refused'
ORDER BY e.project_id DESC, e.run_id DESC, e.token DESC, e.name DESC LIMIT {REFUSALS}
"""
pages = router()


@page(pages, "/p/{project}/workers", csv=True)
async def workers(
    viewer: ReadViewer,
    after: datetime | None = None,
    run: Annotated[UUID | None, Query()] = None,
) -> Response:
    """List the leases, those that end first at the top, and who holds them."""
    if after is not None and after.tzinfo is None:
        raise InvalidValue("after", after.isoformat(), "has no time zone")
    pool, project = viewer.ledger.pool, viewer.ledger.project_id
    start = run or FIRST_RUN
    found = [dict(row) for row in await fetch(pool, _LEASES, project, after, start)]
    leases, more = found[:MOST], found[MOST:]
    holders = [dict(row) for row in await fetch(pool, _HOLDERS, project)]
    refusals = [dict(row) for row in await fetch(pool, _REFUSALS, project)]
    onward = None
    if more:
        last = leases[-1]
        onward = urlencode({"after": last["lease_until"].isoformat(), "run": last["run_id"]})
    return viewer.page(
        "workers.html",
        {"leases": leases, "workers": holders, "refusals": refusals, "onward": onward},
        rows=leases,
        paged=after is not None,
        most=REFUSALS,
    )
