"""Checks of runs that wait for what nobody has: a version of their handler, a role."""

from __future__ import annotations

from typing import Any, Final

from runfold.console.cli.health.check import Check, Level, shown
from runfold.console.shared.approval_requests import WAITING
from runfold.ledger.lifecycle import HISTORY_MISMATCH
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.postgres.opening import Database

_LOOKED_AT: Final = 1_000
"""Runs of a project that are looked at for the role that they ask for."""
# By the index of the runs that were given back, in its order, so that every plan reads it alone.
CHANGED: Final = """
SELECT changed.project_id, changed.kind, changed.number, changed.run_id,
  payload.body ->> 'error_detail' AS reason
FROM (
  SELECT asked.project_id, asked.kind, count(*) AS number,
    (array_agg(run.run_id ORDER BY run.run_id))[1] AS run_id,
    (array_agg(run.version ORDER BY run.run_id))[1] AS version
  FROM (SELECT DISTINCT known.project_id, known.kind FROM ledger.kind AS known) AS asked
  CROSS JOIN LATERAL (
    SELECT run.run_id, run.version FROM ledger.run_state AS run
    WHERE run.project_id = asked.project_id AND run.kind = asked.kind
      AND run.available_at > run.created_at AND run.version > 2
    ORDER BY run.priority, run.available_at, run.run_id OFFSET 0
  ) AS run
  CROSS JOIN LATERAL (
    SELECT event.type, event.error_code FROM ledger.event AS event
    WHERE event.project_id = asked.project_id AND event.run_id = run.run_id
      AND event.version = run.version OFFSET 0
  ) AS event
  WHERE event.type = 'lease.released' AND event.error_code = $1
  GROUP BY asked.project_id, asked.kind
) AS changed
LEFT JOIN ledger.payload AS payload
  ON payload.project_id = changed.project_id AND payload.run_id = changed.run_id
    AND payload.version = changed.version
ORDER BY changed.number DESC, changed.project_id, changed.kind
"""
"""The kinds with runs that no process with their version of the handler has taken."""
VACANT: Final = f"""
SELECT request.project_id, request.role, request.needs, has.members, count(*) AS number
FROM (
  SELECT run.project_id, asked.role, coalesce(run.approvals, 1) AS needs
  FROM ledger.project AS project
  CROSS JOIN LATERAL ({WAITING.format(project="project.project_id", limit=_LOOKED_AT)}) AS waiting
  CROSS JOIN LATERAL (SELECT run.* FROM ledger.run_state AS run
    WHERE run.project_id = project.project_id AND run.run_id = waiting.run_id OFFSET 0) AS run
  CROSS JOIN LATERAL (
    SELECT event.role FROM ledger.event AS event
    WHERE event.project_id = run.project_id AND event.run_id >= run.run_id
      AND event.run_id <= run.run_id AND event.type = 'approval.requested'
    ORDER BY event.run_id DESC, event.version DESC LIMIT 1) AS asked
) AS request
CROSS JOIN LATERAL (
  SELECT count(*) AS members FROM ledger.role_member AS member
  WHERE member.project_id = request.project_id AND member.role = request.role) AS has
WHERE request.role IS NOT NULL AND has.members < request.needs
GROUP BY request.project_id, request.role, request.needs, has.members
ORDER BY count(*) DESC, request.project_id, request.role
"""
"""The roles that approvals ask for and too few have, of the oldest that wait in each project."""


async def handlers(database: Database) -> Check:
    """Whether a run waits for a process with the version of the handler that began it."""
    rows = await fetch(database.pool, CHANGED, HISTORY_MISMATCH)
    if not rows:
        return Check("handlers", Level.OK, "every open run fits its handler")
    return Check(
        "handlers",
        Level.WARNING,
        f"runs wait for the handler that began them: {shown(rows, _changed)}: start a worker "
        "that has it, or `runfold cancel RUN` and `runfold rerun RUN`",
    )


async def approvals(database: Database) -> Check:
    """Whether an approval asks for a role that nobody has, or fewer than must approve."""
    rows = await fetch(database.pool, VACANT)
    if not rows:
        return Check("approvals", Level.OK, "somebody can decide each")
    return Check(
        "approvals",
        Level.WARNING,
        f"nobody has the role that they ask for, or too few have: {shown(rows, _vacant)}: "
        "`runfold roles grant ROLE NAME --reason ...`",
    )


def _changed(row: Any) -> str:
    return (
        f"{row['number']} of kind {row['kind']} in project {row['project_id']}, such as "
        f"{row['run_id']} ({row['reason']})"
    )


def _vacant(row: Any) -> str:
    few = f", which {row['members']} of {row['needs']} has" if row["needs"] > 1 else ""
    return f"{row['number']} for role {row['role']} in project {row['project_id']}{few}"
