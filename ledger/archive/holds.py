"""Holds: they forbid to export or detach a month, or the month of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from runfold.ledger.archive.record import OF_A_MONTH, record
from runfold.ledger.archive.request import check_request
from runfold.ledger.errors import ArchiveRefused, RunNotFound
from runfold.ledger.months import check_month, month_of
from runfold.ledger.postgres.connections import FAILURES, Pool, fetch
from runfold.ledger.postgres.errors import translated

_HOLDS: Final = """
SELECT newest.* FROM (
  SELECT DISTINCT ON (event.month, event.project_id, event.run_id) event.*
  FROM ledger.archive_event AS event
  WHERE event.type LIKE 'hold.%' AND ($1::text IS NULL OR event.month = $1)
  ORDER BY event.month, event.project_id, event.run_id, event.number DESC
) AS newest WHERE newest.type = 'hold.placed'
ORDER BY newest.recorded_at, newest.project_id, newest.number
"""
_KNOWN: Final = "SELECT FROM ledger.run_state WHERE project_id = $1 AND run_id = $2"


async def hold(
    pool: Pool, target: str | tuple[str, UUID], *, actor: str, reason: str, placed: bool = True
) -> None:
    """Forbid to export or detach a month, or one run's month; with `placed` False allow it again.

    Raises InvalidValue, RunNotFound, ArchiveRefused when there is no hold to release.
    """
    run = None if isinstance(target, str) else target
    month = check_month(target) if isinstance(target, str) else month_of(target[1])
    why = check_request(month, actor, reason)
    if run is not None and not await fetch(pool, _KNOWN, *run):
        raise RunNotFound(run[1], run[0])
    held = [(row["project_id"], row["run_id"]) for row in await holds(pool, month)]
    if not placed and (run or (OF_A_MONTH, None)) not in held:
        raise ArchiveRefused(month, [f"nobody holds {run[1] if run else month}"])
    type_ = "hold.placed" if placed else "hold.released"
    try:
        async with pool.acquire() as connection:
            await record(connection, type_, month, actor=actor, reason=why, run=run)
    except (*FAILURES, OSError) as error:
        raise translated(error) from error


async def holds(source: Any, month: str | None = None) -> Sequence[Mapping[str, Any]]:
    """Return the records of the holds on a month, or on any, that were not released."""
    return await fetch(source, _HOLDS, month)
