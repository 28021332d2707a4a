"""The history of a run: every event of it, also from the archive."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from runfold.ledger.archive import reading as archive
from runfold.ledger.events import Event
from runfold.ledger.postgres.connections import Pool, fetch
from runfold.ledger.reading.feed import as_event
from runfold.ledger.reading.runs import get
from runfold.ledger.validation import check_int, check_run_id

HISTORY: Final = "SELECT * FROM ledger.history($1, $2, $3, $4, $5)"


async def history(
    pool: Pool,
    project_id: str,
    run_id: UUID | str,
    *,
    after: int = 0,
    heartbeats: bool = True,
    limit: int | None = None,
) -> list[Event]:
    """Return the run's events after version `after`; see `Ledger.history`."""
    checked = check_run_id(run_id)
    check_int("after", after, least=0)
    if limit is not None:
        check_int("limit", limit, least=1)
    asked = (project_id, checked, after, heartbeats, limit)
    rows = await fetch(pool, HISTORY, *asked)
    if not rows and (run := await get(pool, project_id, checked)).version > after:
        later = [row for row in await archive.entries(pool, run) if row["version"] > after]
        rows = [row for row in later if heartbeats or row["type"] != "lease.heartbeat"][:limit]
        rows = rows or await fetch(pool, HISTORY, *asked)  # a rebuild attached it meanwhile
    return [as_event(row) for row in rows]
