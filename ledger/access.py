"""Access: what a credential, a login or an API token, may do in a project, granted on record.

See docs/howto/access.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias, get_args

from runfold.ledger.errors import AccessDenied, InvalidValue, UnknownProject
from runfold.ledger.operations.project import Project
from runfold.ledger.postgres.connections import Pool, fetch
from runfold.ledger.reading.permitted import check_may
from runfold.ledger.validation import check_actor, check_instant, check_list, check_text

Right: TypeAlias = Literal[
    "submit", "work", "read", "decide", "schedule", "erase", "audit", "admin"
]
RIGHTS: Final[tuple[str, ...]] = get_args(Right)
EVERYWHERE: Final = "*"
"""Stands for all projects in a grant."""

_CHANGE: Final = "SELECT ledger.change_access($1, $2, $3, $4, $5, $6, $7)"
_GRANTED: Final = """
SELECT credential, project_id, rights, actors, until, actor, reason FROM ledger.access_grant
WHERE cardinality(rights) > 0"""
_GRANTS: Final = f"""{_GRANTED} AND project_id IN ($1, '*')
  AND ($2::text IS NULL OR credential = $2) ORDER BY credential, project_id"""
_GRANTS_OF: Final = f"{_GRANTED} AND credential = $1 ORDER BY project_id"
# A credential sees its own grants without a right.
_IS_OWN: Final = "SELECT coalesce($1 = ledger.credential(), true) AS is_own"
_STRANGER: Final = """
SELECT CASE WHEN $1 ~ '^(token|user):'
  THEN ledger.projects_with('audit', 'admin') IS NULL AND NOT EXISTS (
    SELECT FROM ledger.credential_use AS use WHERE use.credential = $1)
  ELSE NOT EXISTS (SELECT FROM pg_roles AS login WHERE login.rolname = $1 AND login.rolcanlogin)
END AS is_stranger
"""
_CHECK: Final = "SELECT ledger.check_my_access($1, $2, $3)"
_HELD: Final = """
SELECT asked.name, seen.projects IS NULL AS everywhere
FROM unnest($2::text[]) AS asked (name)
CROSS JOIN LATERAL (SELECT ledger.projects_with(asked.name) AS projects OFFSET 0) AS seen
WHERE seen.projects IS NULL OR $1 = ANY (seen.projects)
"""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a credential may do in a project (`*`: in all), and for which actors it may speak.

    `until` None: without an end.
    """

    credential: str
    project_id: str
    rights: tuple[str, ...]
    actors: tuple[str, ...]
    until: datetime | None
    actor: str
    reason: str | None


async def grant(
    project: Project,
    credential: str,
    rights: Iterable[str],
    *,
    actors: Iterable[str] | None = None,
    until: datetime | None = None,
    everywhere: bool = False,
    actor: str | None = None,
    reason: str | None = None,
) -> None:
    """Grant rights in place of those that the credential had; see `Ledger.grant_access`."""
    check_list("rights", rights, "texts")
    if actors is not None:
        check_list("actors", actors, "texts")
    chosen = sorted({_right(right) for right in rights})
    if not chosen:
        raise InvalidValue("rights", chosen, "must not be empty; `revoke` takes all of them")
    speaks_for = None if actors is None else [check_actor(name) for name in actors]
    if until is not None:
        check_instant("until", until)
    change = (chosen, speaks_for, until)
    await _change(project, credential, change, everywhere=everywhere, actor=actor, reason=reason)


def _right(right: str) -> str:
    if right not in RIGHTS:
        raise InvalidValue("right", right, f"must be one of {', '.join(RIGHTS)}")
    return right


async def revoke(
    project: Project,
    credential: str,
    *,
    everywhere: bool = False,
    actor: str | None = None,
    reason: str | None = None,
) -> None:
    """Take all rights that the credential has in the project; see `Ledger.revoke_access`."""
    nothing: tuple[list[str], None, None] = ([], None, None)
    await _change(project, credential, nothing, everywhere=everywhere, actor=actor, reason=reason)


async def _change(
    project: Project,
    credential: str,
    change: tuple[list[str], list[str] | None, datetime | None],
    *,
    everywhere: bool,
    actor: str | None,
    reason: str | None,
) -> None:
    check_text("credential", credential)
    why = project.order_reason(reason)
    where = EVERYWHERE if everywhere else project.project_id
    who = project.actor_or_default(actor)
    await fetch(project.pool, _CHANGE, where, who, credential, *change, why)


async def grants(project: Project, credential: str | None = None) -> list[Grant]:
    """Return the grants that hold in the project; see `Ledger.access_grants`.

    Those in all projects are included.
    """
    rows = await fetch(project.pool, _GRANTS, project.project_id, credential)
    if not rows and not (await fetch(project.pool, _IS_OWN, credential))[0]["is_own"]:
        await check_may(project.pool, project.project_id, "audit", "admin")
    return [_grant(row) for row in rows]


async def grants_of(pool: Pool, credential: str) -> list[Grant]:
    """Return what a credential may do in every project whose grants this session sees."""
    return [_grant(row) for row in await fetch(pool, _GRANTS_OF, credential)]


def _grant(row: Mapping[str, Any]) -> Grant:
    return Grant(**{**row, "rights": tuple(row["rights"]), "actors": tuple(row["actors"])})


async def is_stranger(project: Project, credential: str) -> bool:
    """Whether no login of the server, API token or user has this name, as far as is seen here."""
    [row] = await fetch(project.pool, _STRANGER, credential)
    return bool(row["is_stranger"])


async def check(project: Project, right: str, actor: str | None = None) -> str | None:
    """Return why this session lacks a right in the project, or may not speak for an actor.

    None: it may. Raises InvalidValue for an unknown right.
    """
    try:
        await require(project, right, actor)
    except (AccessDenied, UnknownProject) as error:
        return str(error)
    return None


async def require(project: Project, right: str, actor: str | None = None) -> None:
    """Raise AccessDenied or UnknownProject where `check` returns a reason."""
    await fetch(project.pool, _CHECK, project.project_id, _right(right), actor)


async def held(project: Project) -> dict[str, bool]:
    """Return the rights that this session has in the project, each with whether it has it in all.

    Raises AccessDenied or DatabaseUnavailable.
    """
    rows = await fetch(project.pool, _HELD, project.project_id, list(RIGHTS))
    return {row["name"]: row["everywhere"] for row in rows}
