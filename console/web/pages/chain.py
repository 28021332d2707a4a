"""The events of a run with all that their hashes commit to, for the check in the browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, Final

from fastapi import Query
from fastapi.responses import JSONResponse, Response

from runfold.console.web.pages.run import From
from runfold.console.web.pages.viewing import ReadViewer, router
from runfold.ledger import Ledger, access
from runfold.ledger.archive import reading as archive
from runfold.ledger.errors import AccessDenied
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.proof.bundle import evidence
from runfold.ledger.run import Run

MOST: Final = 1_000
WITH_CONTENT: Final = 100
"""Events of an answer with contents, each of which may be long."""
_FACTS: Final = """
SELECT event.*, NULL::bytea AS salt, NULL::text AS body FROM ledger.event AS event
WHERE event.project_id = $1 AND event.run_id = $2 AND event.version > $3
ORDER BY event.version LIMIT $4
"""
_WHOLE: Final = """
SELECT event.*, payload.salt, payload.body::text AS body FROM ledger.event AS event
LEFT JOIN LATERAL (
  SELECT payload.salt, payload.body FROM ledger.payload AS payload
  WHERE payload.project_id = event.project_id AND payload.run_id = event.run_id
    AND payload.version = event.version OFFSET 0
) AS payload ON true
WHERE event.project_id = $1 AND event.run_id = $2 AND event.version > $3
ORDER BY event.version LIMIT $4
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

    Contents come with their salts for viewers with the right audit, if the server's login may read
    them. Others get only the hash of a content: a salt that was read would outlive its erasure.
    """
    ledger = viewer.ledger
    run = await ledger.get(run_id)
    rows = await _rows(ledger, run, after, limit)
    answer: dict[str, Any] = {"events": [], "more": False}
    if rows:
        more = rows[-1]["version"] < run.version
        answer = {**evidence(ledger.project_id, run.run_id, rows), "more": more}
    return JSONResponse(answer)


async def _rows(ledger: Ledger, run: Run, after: int, limit: int) -> Sequence[Mapping[str, Any]]:
    place = (ledger.project_id, run.run_id, after)
    opens = await access.check(ledger.project, "audit") is None
    if opens:
        with suppress(AccessDenied):  # the server's own login lacks runfold_auditor
            whole = (_WHOLE, *place, min(limit, WITH_CONTENT))
            return (
                await fetch(ledger.pool, *whole)
                or await _archived(ledger, run, after, limit, opens=True)
                or await fetch(ledger.pool, *whole)  # a rebuild attached it meanwhile
            )
    facts = (_FACTS, *place, limit)
    return (
        await fetch(ledger.pool, *facts)
        or await _archived(ledger, run, after, limit, opens=False)
        or await fetch(ledger.pool, *facts)
    )


async def _archived(
    ledger: Ledger, run: Run, after: int, limit: int, *, opens: bool
) -> Sequence[Mapping[str, Any]]:
    if after >= run.version:
        return []
    hidden = {} if opens else {"salt": None, "body": None}
    entries = [row for row in await archive.entries(ledger.pool, run) if row["version"] > after]
    return [{**row, **hidden} for row in entries[:limit]]
