"""Saved views: queries of runs under names, for all who read the project."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from runfold.ledger.errors import InvalidValue
from runfold.ledger.operations.project import Project
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.reading.permitted import check_found
from runfold.ledger.reading.query import parse
from runfold.ledger.validation import check_trimmed

MOST: Final = 50
"""Views of a project."""
_ALL: Final = f"""
SELECT name, query, actor FROM ledger.saved_view WHERE project_id = $1 ORDER BY name LIMIT {MOST}
"""
_CHANGE: Final = "SELECT ledger.change_view($1, $2, $3, $4) AS changed"


@dataclass(frozen=True, slots=True)
class View:
    """A query under a name, and who saved it."""

    name: str
    query: str
    actor: str


async def views(project: Project) -> list[View]:
    """Return the views of a project by name. Needs the right read or audit."""
    rows = await fetch(project.pool, _ALL, project.project_id)
    await check_found(rows, project.pool, project.project_id, "read", "audit")
    return [View(**row) for row in rows]


async def save(project: Project, name: str, query: str) -> bool:
    """Save a query under a name; return whether that changed anything.

    Raises InvalidQuery, or InvalidValue, for example if the project has 50 views already.
    """
    if not parse(query).text:
        raise InvalidValue("query", query, "must not be empty: all runs need no view")
    return await _change(project, name, query.strip())


async def drop(project: Project, name: str) -> bool:
    """Remove a view; return whether there was one. Raises InvalidValue."""
    return await _change(project, name, None)


async def _change(project: Project, name: str, query: str | None) -> bool:
    values = (project.actor_or_default(None), check_trimmed("name", name), query)
    [row] = await fetch(project.pool, _CHANGE, project.project_id, *values)
    return bool(row["changed"])
