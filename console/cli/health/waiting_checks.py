"""Checks of runs that wait for what nobody has: a version of their handler, a role."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from runfold.console.cli.health.check import Check, Level
from runfold.console.shared.approval_requests import WAITING
from runfold.ledger.lifecycle import HISTORY_MISMATCH
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.postgres.opening import Database

_SHOWN: Final = 3
_LOOKED_AT: Final = 1_000
"""Runs of a project that are looked at for the role that they ask for."""
_CHANGED: Final = """
SELECT w.project_id, w.kind, w.number, w.run_id, p.body ->> 'error_detail' AS reason
FROM (
  SELECT s.project_id, s.kind, count(*) AS number, (array_agg(s.run_id ORDER BY s.run_id))[1]
    AS run_id, (array_agg(s.version ORDER BY s.run_id))[1] AS version
  FROM ledger.run_state AS s
  JOIN ledger.event AS e
    ON e.project_id = s.project_id AND e.run_id = s.run_id AND e.version = s.version
  WHERE s.available_at IS NOT NULL AND s.version > 2
    AND e.type = 'lease.released' AND e.error_code = $1
  GROUP BY s.project_id, s.kind
) AS w
LEFT JOIN ledger.payload AS p
  ON p.project_id = w.project_id AND p.run_id = w.run_id AND p.version = w.version
ORDER BY w.number DESC, w.project_id, w.kind
"""
VACANT: Final = f"""
SELECT a.project_id, a.role, a.needs, has.members, count(*) AS number
FROM (
  SELECT s.project_id, asked.role, coalesce(s.approvals, 1) AS needs
  FROM ledger.project AS p
  CROSS JOIN LATERAL ({WAITING.format(project="p.project_id", limit=_LOOKED_AT)}) AS w
  CROSS JOIN LATERAL (SELECT r.* FROM ledger.run_state AS r
    WHERE r.project_id = p.project_id AND r.run_id = w.run_id OFFSET 0) AS s
  CROSS JOIN LATERAL (
    SELECT e.role FROM ledger.event AS e
    WHERE e.project_id = s.project_id AND e.run_id = s.run_id AND e.type = 'approval.requested'
    ORDER BY e.version DESC LIMIT 1) AS asked
) AS a
CROSS JOIN LATERAL (
  SELECT count(*) AS members FROM ledger.role_member AS m
  WHERE m.project_id = a.project_id AND m.role = a.role) AS has
WHERE a.role IS NOT NULL AND has.members < a.needs
GROUP BY a.project_id, a.role, a.needs, has.members
ORDER BY count(*) DESC, a.project_id, a.role
"""
"""The roles that approvals ask for and too few have, of the oldest that wait in each project."""


async def handlers(database: Database) -> Check:
    """Whether a run waits for a process with the version of the handler that began it."""
    rows = await fetch(database.pool, _CHANGED, HISTORY_MISMATCH)
    if not rows:
        return Check("handlers", Level.OK, "every open run fits its handler")
    return Check(
        "handlers",
        Level.WARNING,
        f"runs wait for the handler that began them: {_shown(rows, _changed)}: start a worker "
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
        f"nobody has the role that they ask for, or too few have: {_shown(rows, _vacant)}: "
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


def _shown(rows: Sequence[Any], describe: Callable[[Any], str]) -> str:
    more = f"; {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
    return "; ".join(describe(row) for row in rows[:_SHOWN]) + more
