"""Reap: repair what died and end what is overdue.

The statement is `ledger/sql/operations/reap.sql`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from runfold.ledger import lifecycle, names
from runfold.ledger.operations.claim import Marks
from runfold.ledger.operations.project import Project
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.run import Run
from runfold.ledger.validation import check_int

REAP: Final = (
    "SELECT r.*, t.type AS reaped_type, t.from_state AS reaped_state,"
    " t.worker_id AS reaped_worker, t.error_code AS reaped_code"
    " FROM ledger.reap($1, $2, $3) AS t CROSS JOIN LATERAL ledger.read_run($1, t.run_id) AS r"
)


async def reap(project: Project, marks: Marks, *, limit: int) -> list[Run]:
    """Make one sweep; see `Ledger.reap`."""
    check_int("limit", limit, least=1, most=10_000)
    rows = await fetch(project.pool, REAP, project.project_id, "reaper", limit)
    logger = project.log()
    for row in rows:
        _log_reaped(logger, row)
    logger.info(names.REAPER_DONE, reaped=len(rows))
    marks.clear()  # the runs are older than the marks
    if rows:
        project.waker.wake()
    return [Run.from_row(row) for row in rows]


def _log_reaped(logger: Any, row: Mapping[str, Any]) -> None:
    if row["reaped_type"] == "tool.failed":  # a wait that is over: the run goes on
        logger.info(
            names.STATE_TRANSITION,
            run_id=str(row["run_id"]),
            from_state=row["reaped_state"],
            error_code=row["reaped_code"],
        )
        return
    match row["reaped_code"]:
        case None:  # its cancel was requested, and its holder is gone
            report, event = logger.info, names.STATE_TRANSITION
        case lifecycle.LEASE_EXPIRED:
            report, event = logger.warning, names.STALE_REQUEUED
        case _:
            report, event = logger.error, names.STALE_FAILED
    report(
        event,
        run_id=str(row["run_id"]),
        worker_id=row["reaped_worker"],
        attempt_count=row["attempt_count"],
        max_attempts=row["max_attempts"],
        from_state=row["reaped_state"],
        to_state=row["state"],
        error_code=row["reaped_code"],
    )
