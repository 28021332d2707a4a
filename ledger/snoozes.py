"""Requests for an approval that a person has put off: out of that person's inbox for a while.

See docs/decisions/0079.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from runfold.ledger.operations.project import Project
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.validation import MAX_INT, check_instant, check_int, check_run_id

MOST: Final = 500
"""Requests that one person has put off."""
_CHANGE: Final = "SELECT ledger.snooze($1, $2, $3, $4, $5) AS changed"
# One that was replaced, or that another person has signed since, is back. An end that ledger.snooze
# would not take is that of a damaged row, which must hide no request for ever.
_OF_ACTOR: Final = f"""
SELECT snooze.run_id, snooze.version, snooze.until FROM ledger.snooze AS snooze
CROSS JOIN LATERAL (
  SELECT state.state, state.available_at FROM ledger.run_state AS state
  WHERE state.project_id = snooze.project_id AND state.run_id = snooze.run_id LIMIT 1) AS run
WHERE snooze.project_id = $1 AND snooze.actor = $2
  AND snooze.until > ledger.now() AND snooze.until <= ledger.now() + interval '90 days'
  AND run.state = 'waiting_approval' AND run.available_at IS NULL AND NOT EXISTS (
    SELECT FROM ledger.event AS event
    WHERE event.project_id = snooze.project_id AND event.run_id = snooze.run_id
      AND event.version > snooze.version AND (event.type = 'approval.requested'
        OR event.type = 'approval.signed' AND event.version > snooze.seen))
ORDER BY snooze.until, snooze.run_id LIMIT {MOST}
"""


@dataclass(frozen=True, slots=True)
class Snooze:
    """A request, by its run and its version, that a person does not want to see before a time."""

    run_id: UUID
    version: int
    until: datetime


async def snoozes(project: Project, actor: str) -> list[Snooze]:
    """Return what a person has put off and still waits unchanged; what is back first comes first.

    Needs the right read.
    """
    rows = await fetch(project.pool, _OF_ACTOR, project.project_id, actor)
    return [Snooze(**row) for row in rows]


async def snooze(
    project: Project,
    run_id: str | UUID,
    version: int,
    until: datetime | None,
    *,
    actor: str | None = None,
) -> bool:
    """Put off a request until a time, or until it changes; without a time, end that.

    Returns False if the run does not wait for that request, or had not been put off. Needs the
    right decide. Raises InvalidValue for a time in the past, after the request lapses, or more than
    90 days away.
    """
    if until is not None:
        check_instant("until", until)
    named = (check_run_id(run_id), check_int("version", version, least=1, most=MAX_INT), until)
    who = project.actor_or_default(actor)
    [row] = await fetch(project.pool, _CHANGE, project.project_id, who, *named)
    return bool(row["changed"])
