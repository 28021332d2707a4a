"""Whether a login sees what a check compares: where it sees a part, the rest would look damaged."""

from __future__ import annotations

from typing import Final

from runfold.ledger.errors import AccessDenied
from runfold.ledger.postgres.connections import Pool, fetch

# Null: the login sees all projects.
_MAY_READ: Final = "SELECT coalesce($1 = ANY (ledger.projects_with('read', 'audit')), true) AS may"


async def check_may_read(pool: Pool, project_id: str) -> None:
    """Raise AccessDenied unless the login may read the project's runs and their contents."""
    [row] = await fetch(pool, _MAY_READ, project_id)
    if not row["may"]:
        reason = f"this login lacks the right read or audit in project {project_id}"
        raise AccessDenied(reason, AccessDenied.GRANTS)
