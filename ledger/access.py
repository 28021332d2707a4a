"""Access: what a credential, a login or an API token, may do in a project, granted on record.

See docs/howto/access.md.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final, Literal, TypeAlias, get_args
from uuid import UUID

from runfold.ledger.errors import AccessDenied, InvalidValue, UnknownProject
from runfold.ledger.operations.project import Project
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.validation import (
    check_actor,
    check_int,
    check_list,
    check_text,
    check_year,
)

Right: TypeAlias = Literal[
    "submit", "work", "read", "decide", "schedule", "erase", "audit", "admin"
]
RIGHTS: Final[tuple[str, ...]] = get_args(Right)
EVERYWHERE: Final = "*"
"""Stands for all projects in a grant."""
SECRET_PREFIX: Final = "runfold_"  # noqa: S105  the beginning of every secret
"""How the secret of an API token begins, so that scanners for leaked secrets find it."""

_CHANGE: Final = "SELECT ledger.change_access($1, $2, $3, $4, $5, $6, $7)"
_GRANTS: Final = """
SELECT credential, project_id, rights, actors, until, actor, reason FROM ledger.access_grant
WHERE cardinality(rights) > 0 AND project_id IN ($1, '*') AND ($2::text IS NULL OR credential = $2)
ORDER BY credential, project_id
"""
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
_ISSUE: Final = "SELECT ledger.change_token($1, $2, $3, $4, $5, $6) AS changed"
# The place is found apart: a coalesce in the comparison would keep a login from the index.
_TOKENS: Final = """
WITH place AS (
  SELECT coalesce(max(created_at), '-infinity') AS since FROM ledger.api_token WHERE token_id = $1
)
SELECT token.token_id, token.name, token.created_at, token.expires_at, token.revoked_at,
  use.last_used_at, coalesce(use.failed_uses, 0) AS failed_uses
FROM (
  SELECT token_id, name, created_at, expires_at, revoked_at FROM ledger.api_token
  WHERE (created_at, token_id) > ((SELECT since FROM place), $1)
  ORDER BY created_at, token_id LIMIT $2
) AS token
LEFT JOIN LATERAL (
  SELECT noted.last_used_at, noted.failed_uses FROM ledger.credential_use AS noted
  WHERE noted.credential = 'token:' || token.token_id OFFSET 0
) AS use ON true
ORDER BY token.created_at, token.token_id
"""
_READS: Final = """
SELECT read_at, run_id, credential, route FROM ledger.payload_read
WHERE project_id = $1 AND ($2::uuid IS NULL OR run_id = $2)
ORDER BY read_at DESC, run_id DESC, credential DESC, route DESC LIMIT $3
"""
_NOTE_READS: Final = "SELECT ledger.note_reads($1, $2, $3)"
_DROP_READS: Final = "SELECT ledger.drop_reads($1, $2, $3, $4) AS dropped"
_HISTORY: Final = """
SELECT project_id, number, recorded_at, credential, type, subject, facts, actor, reason
FROM ledger.control_event WHERE project_id = $1 AND number > $2
ORDER BY number LIMIT $3
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


@dataclass(frozen=True, slots=True)
class ApiToken:
    """An API token without its secret, which nobody can read again."""

    token_id: str
    name: str
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    last_used_at: datetime | None
    failed_uses: int

    @property
    def credential(self) -> str:
        """How grants and events name it."""
        return f"token:{self.token_id}"


@dataclass(frozen=True, slots=True)
class PayloadRead:
    """In a minute a credential read the content of a run, by a route of the API or the pages."""

    read_at: datetime
    run_id: UUID
    credential: str
    route: str


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
        if until.tzinfo is None:
            raise InvalidValue("until", until, "must have a time zone")
        check_year("until", until)
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
    return [
        Grant(**{**row, "rights": tuple(row["rights"]), "actors": tuple(row["actors"])})
        for row in rows
    ]


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


async def make_token(
    project: Project,
    name: str,
    *,
    days: int = 90,
    actor: str | None = None,
    reason: str | None = None,
) -> tuple[str, str]:
    """Make an API token; return its credential and its secret, which is shown this once.

    It has no rights until `token:<id>` is granted some. Needs the right admin in all projects.
    """
    check_text("name", name)
    lifetime = timedelta(days=check_int("days", days, least=1, most=3650))
    token_id = secrets.token_hex(6)
    secret = f"{SECRET_PREFIX}{token_id}_{secrets.token_urlsafe(32)}"
    facts = (token_id, sha256(secret.encode()).digest(), name, lifetime)
    why = project.order_reason(reason)
    await fetch(project.pool, _ISSUE, project.actor_or_default(actor), *facts, why)
    return f"token:{token_id}", secret


async def revoke_token(
    project: Project, token_id: str, *, actor: str | None = None, reason: str | None = None
) -> bool:
    """Revoke an API token; return whether it was one that could still be used."""
    facts = (check_text("token", token_id.removeprefix("token:"), limit=40), None, None, None)
    why = project.order_reason(reason)
    rows = await fetch(project.pool, _ISSUE, project.actor_or_default(actor), *facts, why)
    return bool(rows[0]["changed"])


async def tokens(project: Project, *, after: str = "", limit: int = 1_000) -> list[ApiToken]:
    """Return API tokens, the oldest first: those after the token of an id, or all.

    Needs the right admin or audit everywhere. Raises InvalidValue for a limit above 10,000.
    """
    check_int("limit", limit, least=1, most=10_000)
    place = after and check_text("token", after.removeprefix("token:"), limit=40)
    return [ApiToken(**row) for row in await fetch(project.pool, _TOKENS, place, limit)]


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
    return [ControlEvent(**row) for row in rows]


async def note_reads(project: Project, run_ids: Iterable[UUID], route: str) -> None:
    """Record that this session's credential reads the content of runs; each once a minute."""
    await fetch(project.pool, _NOTE_READS, project.project_id, list(run_ids), route)


async def reads(
    project: Project, *, run_id: UUID | None = None, limit: int = 100
) -> list[PayloadRead]:
    """Return who read the content of which run, the newest first. Needs the right audit.

    What the API and the pages showed is recorded; what a login reads from the tables is not.
    """
    check_int("limit", limit, least=1, most=10_000)
    rows = await fetch(project.pool, _READS, project.project_id, run_id, limit)
    return [PayloadRead(**row) for row in rows]


async def drop_reads(
    project: Project, before: datetime, *, actor: str | None = None, reason: str | None = None
) -> int:
    """Delete the project's records of reads from before a time; return how many.

    On record in the control history, in transactions of 10,000 records. For the owner of the
    schema. Raises InvalidValue for a time that is less than 184 days ago.
    """
    check_year("before", before)
    why = project.order_reason(reason)
    by = check_actor(actor or project.actor)
    given, dropped = (project.project_id, by, before, why), 0
    while count := (await fetch(project.pool, _DROP_READS, *given))[0]["dropped"]:
        dropped += count
    return dropped
