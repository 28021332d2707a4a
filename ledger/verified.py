"""Checks of a whole project on record: the last one, what it covered and what it found."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from runfold.ledger.errors import AccessDenied
from runfold.ledger.operations.project import Project
from runfold.ledger.postgres.connections import Pool, fetch
from runfold.ledger.reading.report import Report

_NOTE: Final = "SELECT ledger.note_verify($1, $2, $3, $4, $5, $6, $7, $8)"
_LAST: Final = """
SELECT event.number, event.recorded_at, event.actor, event.credential, event.facts
FROM ledger.control_event AS event
WHERE event.project_id = $1 AND event.subject = 'verify:' || $1
ORDER BY event.number DESC LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Verified:
    """A check of all runs of a project, as of its beginning."""

    number: int
    """Of the event of the control history."""
    recorded_at: datetime
    actor: str
    credential: str
    began_at: datetime
    runs: int
    events: int
    erased: int
    findings: int
    unchecked: Sequence[str]
    """What the session could not read, and so did not check."""


async def note(
    project: Project, report: Report, began_at: datetime, *, actor: str | None = None
) -> None:
    """Record a check of the whole project. Needs the right audit."""
    findings = len(report.findings) + report.more
    counts = (report.runs, report.events, report.erased, findings, list(report.unchecked))
    who = project.actor_or_default(actor)
    await fetch(project.pool, _NOTE, project.project_id, who, began_at, *counts)


async def last(pool: Pool, project_id: str) -> Verified | None:
    """Return the last check on record; None if there is none, or the session may not audit."""
    try:
        rows = await fetch(pool, _LAST, project_id)
    except AccessDenied:  # the login has no role that reads the control history
        return None
    if not rows:
        return None
    row = dict(rows[0])
    facts: dict[str, Any] = json.loads(row.pop("facts"))
    began_at = datetime.fromisoformat(facts.pop("began_at"))
    return Verified(**facts, **row, began_at=began_at)
