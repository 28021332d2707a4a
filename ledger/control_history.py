"""The control history: every order in a project or in the whole database, hash-chained.

See docs/decisions/0057.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from runfold.ledger.access import EVERYWHERE
from runfold.ledger.operations.project import Project
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.reading.permitted import check_found
from runfold.ledger.validation import check_int

_HISTORY: Final = """
SELECT project_id, number, recorded_at, credential, type, subject, facts, actor, reason
FROM ledger.control_event WHERE project_id = $1 AND number > $2
ORDER BY number LIMIT $3
"""


@dataclass(frozen=True, slots=True)
class ControlEvent:
    """One order in the control history: its actor, its credential and the row it left."""

    project_id: str
    """Whose list it is in: a project's, or that of the database, `*`."""
    number: int
    recorded_at: datetime
    credential: str
    type: str
    subject: str
    facts: str | None
    actor: str
    reason: str | None


async def control_history(
    project: Project, *, after: int = 0, everywhere: bool = False, limit: int = 1_000
) -> list[ControlEvent]:
    """Return the project's list of changes of kinds, roles, schedules and grants, oldest first.

    `everywhere`: the database's list in its place: projects, archives, API tokens, upgrades, grants
    in all projects. `after`: the number of an event. Needs the right audit.
    """
    check_int("limit", limit, least=1, most=10_000)
    where = EVERYWHERE if everywhere else project.project_id
    rows: Any = await fetch(project.pool, _HISTORY, where, after, limit)
    await check_found(rows, project.pool, where, "audit")
    return [ControlEvent(**row) for row in rows]
