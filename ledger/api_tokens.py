"""API tokens: secrets that let a program in, made and revoked on record.

See docs/howto/access.md.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

from runfold.ledger.access import EVERYWHERE
from runfold.ledger.operations.project import Project
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.reading.permitted import check_found
from runfold.ledger.validation import check_int, check_text

SECRET_PREFIX: Final = "runfold_"  # noqa: S105  the beginning of every secret
"""How the secret of an API token begins, so that scanners for leaked secrets find it."""
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
    rows = await fetch(project.pool, _TOKENS, place, limit)
    await check_found(rows, project.pool, EVERYWHERE, "admin", "audit")
    return [ApiToken(**row) for row in rows]
