"""Reap: repair what died and end what is overdue.

The statement is `ledger/sql/operations/reap.sql`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from runfold.ledger import lifecycle, names
from runfold.ledger.errors import DatabaseRefused
from runfold.ledger.operations.project import Project
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.run import Run
from runfold.ledger.validation import check_int

REAP: Final = "SELECT * FROM ledger.reap($1, $2, $3, $4)"
PULSE: Final = """
SELECT current_setting('transaction_read_only') = 'on' AS read_only, ledger.clock() AS clock,
  ledger.keep_time() AS now, ledger.next_due($1, $2) AS due
"""
_LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)
# Read in a separate statement, so that a run that cannot be read does not undo the sweep.
_RUNS: Final = (
    "SELECT run.* FROM unnest($2::uuid[]) AS reaped (run_id)"
    " CROSS JOIN LATERAL ledger.read_run($1, reaped.run_id) AS run"
)


async def reap(project: Project, *, limit: int, leases: bool) -> list[Run]:
    """Make one sweep; see `Ledger.reap`."""
    check_int("limit", limit, least=1, most=10_000)
    reaped = await _sweep(project, limit, leases=leases)
    logger = project.log()
    for row in reaped:
        _log_reaped(logger, row)
    logger.info(names.REAPER_DONE, reaped=len(reaped))
    if not reaped:
        return []
    project.waker.wake()
    ids = [row["run_id"] for row in reaped]
    rows = await fetch(project.pool, _RUNS, project.project_id, ids)
    runs = {row["run_id"]: Run.from_row(row) for row in rows}
    return [runs[run_id] for run_id in ids]


@dataclass(frozen=True, slots=True)
class Pulse:
    """What the database answers a reaper that may have nothing to do."""

    read_only: bool
    clock: datetime
    """The server's clock; a reaper compares two to notice that it was set."""
    now: datetime
    due: datetime | None
    """When the clock ends the next run, if it does within a minute."""


async def pulse(project: Project, after: datetime | None) -> Pulse:
    """Ask whether the database takes writes, and when the next run after an instant is due."""
    [row] = await fetch(project.pool, PULSE, project.project_id, after or _LONG_AGO)
    return Pulse(row["read_only"], row["clock"], row["now"], row["due"])


async def _sweep(project: Project, limit: int, *, leases: bool) -> Sequence[Mapping[str, Any]]:
    """Reap at most `limit` runs; a sweep that the database refuses goes on with half as many."""
    while True:
        try:
            return await fetch(project.pool, REAP, project.project_id, "reaper", limit, leases)
        except DatabaseRefused as error:
            if limit == 1:
                raise
            limit //= 2
            project.log().warning(names.SWEEP_HALVED, limit=limit, reason=str(error))


def _log_reaped(logger: Any, row: Mapping[str, Any]) -> None:
    if row["type"] in {"tool.failed", "approval.lapsed"}:  # a wait that is over: the run goes on
        logger.info(
            names.STATE_TRANSITION,
            run_id=str(row["run_id"]),
            from_state=row["from_state"],
            error_code=row["error_code"],
        )
        return
    match row["error_code"]:
        case None:  # its cancel was requested, and its holder is gone
            report, event = logger.info, names.STATE_TRANSITION
        case lifecycle.LEASE_EXPIRED:
            report, event = logger.warning, names.STALE_REQUEUED
        case _:
            report, event = logger.error, names.STALE_FAILED
    report(
        event,
        run_id=str(row["run_id"]),
        worker_id=row["worker_id"],
        attempt_count=row["attempt_count"],
        max_attempts=row["max_attempts"],
        from_state=row["from_state"],
        to_state=row["to_state"],
        error_code=row["error_code"],
    )
