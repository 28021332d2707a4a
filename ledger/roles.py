"""Roles: which members may decide an approval, granted and revoked on record.

See docs/decisions/0026.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from runfold.ledger.errors import NobodyHasRole, RoleNotHeld
from runfold.ledger.operations.project import Project
from runfold.ledger.postgres.connections import Pool, fetch
from runfold.ledger.reading.permitted import check_found
from runfold.ledger.validation import check_actor, check_text

_CHANGE: Final = "SELECT ledger.change_role($1, $2, $3, $4, $5, $6) AS changed"
_MEMBERS: Final = """
SELECT role, member, recorded_at, actor, reason FROM ledger.role_member
WHERE project_id = $1 ORDER BY role, member
"""
_OF_ROLE: Final = """
SELECT role, member, recorded_at, actor, reason FROM ledger.role_member
WHERE project_id = $1 AND role = $2 ORDER BY member
"""
_HELD: Final = """
SELECT count(*) AS held FROM (
  SELECT FROM ledger.role_member WHERE project_id = $1 AND role = $2 LIMIT $3
) AS enough
"""
_HISTORY: Final = """
SELECT role, member, recorded_at, actor, reason, type FROM ledger.role_event
WHERE project_id = $1 ORDER BY number
"""
_HISTORY_OF_ROLE: Final = """
SELECT role, member, recorded_at, actor, reason, type FROM ledger.role_event
WHERE project_id = $1 AND role = $2 ORDER BY number
"""
_RIGHTS: Final = ("read", "work", "decide", "audit", "admin")
"""One of them shows the roles of a project."""


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a role: since when, granted by which actor, for what reason."""

    role: str
    member: str
    recorded_at: datetime
    actor: str
    reason: str | None
    type: str = "role.granted"
    """In a history also `role.revoked`."""


async def grant(
    project: Project, role: str, member: str, *, actor: str | None, reason: str | None = None
) -> None:
    """Grant a role; see `Ledger.grant_role`."""
    check_actor(member, "member")
    await _change(project, "role.granted", role, member, actor=actor, reason=reason)


async def revoke(
    project: Project, role: str, member: str, *, actor: str | None, reason: str | None = None
) -> None:
    """Revoke a role; see `Ledger.revoke_role`."""
    check_text("member", member)  # whatever was ever granted can be revoked
    if not await _change(project, "role.revoked", role, member, actor=actor, reason=reason):
        raise RoleNotHeld(role, member)


async def members(pool: Pool, project_id: str, role: str | None = None) -> list[Member]:
    """Return the members of a role, or of every role; see `Ledger.role_members`."""
    rows = (
        await fetch(pool, _MEMBERS, project_id)
        if role is None
        else await fetch(pool, _OF_ROLE, project_id, check_text("role", role))
    )
    await check_found(rows, pool, project_id, *_RIGHTS)
    return [Member(**row) for row in rows]


async def history(pool: Pool, project_id: str, role: str | None = None) -> list[Member]:
    """Return every grant and revocation of a role; see `Ledger.role_history`."""
    rows = (
        await fetch(pool, _HISTORY, project_id)
        if role is None
        else await fetch(pool, _HISTORY_OF_ROLE, project_id, check_text("role", role))
    )
    await check_found(rows, pool, project_id, *_RIGHTS)
    return [Member(**row) for row in rows]


async def require_members(pool: Pool, project_id: str, role: str, needed: int) -> None:
    """Raise NobodyHasRole for a role with fewer members than are needed, or InvalidValue."""
    [row] = await fetch(pool, _HELD, project_id, check_text("role", role), needed)
    if row["held"] < needed:
        raise NobodyHasRole(role, row["held"], needed)


async def _change(
    project: Project, type_: str, role: str, member: str, *, actor: str | None, reason: str | None
) -> bool:
    who, why = project.actor_or_default(actor), project.order_reason(reason)
    values = (project.project_id, who, type_, check_text("role", role), member, why)
    [row] = await fetch(project.pool, _CHANGE, *values)
    return bool(row["changed"])
