"""The events of a run with all that their hashes commit to, for the check in the browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from fastapi import Query
from fastapi.responses import JSONResponse, Response

from runfold.console.web.pages.run import From
from runfold.console.web.pages.viewing import ReadViewer, router
from runfold.ledger import Ledger, access
from runfold.ledger.archive import reading as archive
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.proof.bundle import evidence
from runfold.ledger.run import Run

MOST: Final = 1_000
WITH_CONTENT: Final = 100
"""Events of an answer that has their contents, each of which may be long."""
_EVENTS: Final = """
SELECT e.*, p.salt, p.body FROM ledger.event AS e
LEFT JOIN LATERAL (
  SELECT p.salt, p.body FROM ledger.payload AS p
  WHERE p.project_id = e.project_id AND p.run_id = e.run_id AND p.version = e.version AND $5
  OFFSET 0
) AS p ON true
WHERE e.project_id = $1 AND e.run_id = $2 AND e.version > $3
ORDER BY e.version LIMIT $4
"""
pages = router()


@pages.get("/p/{project}/runs/{run_id}/chain.json")
async def chain(
    viewer: ReadViewer,
    run_id: str,
    *,
    after: From = 0,
    limit: Annotated[int, Query(ge=1, le=MOST)] = MOST,
) -> Response:
    """Answer with a window of a run's events as evidence has them.

    Salts are for those with the right audit, because a salt outlives an erasure where it was read:
    for others the hashes of contents stand for them.
    """
    ledger = viewer.ledger
    run = await ledger.get(run_id)
    opens = await access.check(ledger.project, "audit") is None
    rows = await _rows(
        ledger, run, after, min(limit, WITH_CONTENT) if opens else limit, opens=opens
    )
    told: dict[str, Any] = {"events": [], "more": False}
    if rows:
        more = rows[-1]["version"] < run.version
        told = {**evidence(ledger.project_id, run.run_id, rows), "more": more}
    return JSONResponse(told)


async def _rows(
    ledger: Ledger, run: Run, after: int, limit: int, *, opens: bool
) -> Sequence[Mapping[str, Any]]:
    rows: Sequence[Mapping[str, Any]] = await fetch(
        ledger.pool, _EVENTS, ledger.project_id, run.run_id, after, limit, opens
    )
    if rows or after >= run.version:
        return rows
    archived = [row for row in await archive.entries(ledger.pool, run) if row["version"] > after]
    hidden = {} if opens else {"salt": None, "body": None}
    return [{**row, **hidden} for row in archived[:limit]]
