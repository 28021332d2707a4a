"""Users of the pages: people who sign in by a password or an identity provider, on record.

A user is the credential `user:<name>`, to which rights are granted as to any other. See
docs/howto/sign-in.md.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Final

from runfold.ledger.access import EVERYWHERE
from runfold.ledger.errors import ConfigurationError, InvalidValue
from runfold.ledger.operations.project import Project
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.reading.permitted import check_found
from runfold.ledger.validation import check_encodable, check_int, check_text

USER_PREFIX: Final = "user:"
LEAST_PASSWORD: Final = 12
MAX_PASSWORD: Final = 200
METHOD: Final = "argon2id t=3 m=65536 p=1"
"""How keys are made of new passwords: passes, KiB of memory, lanes."""
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._@-]{0,99}")
MOST: Final = (10, 262_144, 4)
"""The most passes, KiB and lanes: a method that somebody stores may not take all memory."""
_METHOD: Final = re.compile(r"argon2id t=(\d{1,2}) m=(\d{1,6}) p=(\d)")
_CHANGE: Final = "SELECT ledger.change_user($1, $2, $3, $4, $5, $6, $7, $8, $9) AS changed"
_USERS: Final = """
SELECT account.name, account.issuer, account.subject, account.created_at, account.changed_at,
  account.disabled_at, use.last_used_at, coalesce(use.failed_uses, 0)::int AS failed_tries
FROM (
  SELECT * FROM ledger.user_account WHERE name > $1 ORDER BY name LIMIT $2
) AS account
CROSS JOIN LATERAL (
  SELECT max(by_login.last_used_at) AS last_used_at, sum(by_login.failed_uses) AS failed_uses
  FROM ledger.credential_use AS by_login WHERE by_login.credential = 'user:' || account.name
) AS use
ORDER BY account.name
"""


@dataclass(frozen=True, slots=True)
class User:
    """A user; nobody can read what is kept of the password."""

    name: str
    issuer: str | None
    subject: str | None
    created_at: datetime
    changed_at: datetime
    disabled_at: datetime | None
    last_used_at: datetime | None
    failed_tries: int
    """Wrong passwords since the last right one."""

    @property
    def credential(self) -> str:
        """How grants and events name it."""
        return USER_PREFIX + self.name


async def add(
    project: Project,
    name: str,
    *,
    password: str | None = None,
    provider: tuple[str, str] | None = None,
    actor: str | None = None,
    reason: str | None = None,
) -> bool:
    """Add a user, without any right; return False if the name or the subject is taken.

    With either a password or the issuer and subject by which an identity provider names the user.
    Needs the right admin in all projects. Raises InvalidValue.
    """
    if (password is None) == (provider is None):
        raise InvalidValue("user", name, "must have a password or a provider's subject, not both")
    issuer, subject = provider or (None, None)
    if issuer is not None and subject is not None:
        check_text("issuer", issuer)
        check_text("subject", subject)
    hashed = _hashed(password) if password is not None else (None, None, None)
    return await _change(
        project, name, "add", (*hashed, issuer, subject), actor=actor, reason=reason
    )


async def set_password(
    project: Project,
    name: str,
    password: str,
    *,
    actor: str | None = None,
    reason: str | None = None,
) -> bool:
    """Replace a user's password and end their sessions; return whether the user exists."""
    facts = (*_hashed(password), None, None)
    return await _change(project, name, "password", facts, actor=actor, reason=reason)


async def disable(
    project: Project, name: str, *, actor: str | None = None, reason: str | None = None
) -> bool:
    """Disable a user and end their sessions; return whether that changed anything."""
    return await _change(project, name, "disable", (None,) * 5, actor=actor, reason=reason)


async def enable(
    project: Project, name: str, *, actor: str | None = None, reason: str | None = None
) -> bool:
    """Enable a user again; return whether that changed anything."""
    return await _change(project, name, "enable", (None,) * 5, actor=actor, reason=reason)


async def users(project: Project, *, after: str = "", limit: int = 1_000) -> list[User]:
    """Return users by name: those after a name, or all. Needs the right admin or audit everywhere.

    Raises InvalidValue for a limit above 10,000.
    """
    check_int("limit", limit, least=1, most=10_000)
    place = after and check_name(after)
    rows = await fetch(project.pool, _USERS, place, limit)
    await check_found(rows, project.pool, EVERYWHERE, "admin", "audit")
    return [User(**row) for row in rows]


async def _change(
    project: Project,
    name: str,
    change: str,
    facts: tuple[str | bytes | None, ...],
    *,
    actor: str | None,
    reason: str | None,
) -> bool:
    why = project.order_reason(reason)
    who = project.actor_or_default(actor)
    chosen = check_name(name)
    [row] = await fetch(project.pool, _CHANGE, who, chosen, change, *facts, why)
    return bool(row["changed"])


def check_name(name: str) -> str:
    """Return the name of a user without `user:`. Raises InvalidValue."""
    plain = name.removeprefix(USER_PREFIX)
    if not _NAME.fullmatch(plain):
        raise InvalidValue(
            "user", name, 'must have 1 to 100 of a-z, 0-9, ".", "_", "@", "-", and begin with'
            " a letter or digit",
        )  # fmt: skip
    return plain


def _hashed(password: str) -> tuple[str, bytes, bytes]:
    """Return how the key is made, the salt, and the SHA-256 of the key.

    Raises InvalidValue, which does not show the password.
    """
    if not LEAST_PASSWORD <= len(password) <= MAX_PASSWORD:
        problem = f"must have {LEAST_PASSWORD} to {MAX_PASSWORD} characters"
        raise InvalidValue("password", "...", problem)
    check_encodable("password", password)
    salt = secrets.token_bytes(16)
    return METHOD, salt, sha256(key_of(password, METHOD, salt)).digest()


def key_of(password: str, method: str, salt: bytes) -> bytes:
    """Return the key of a password, which takes about 0.1 s of a core and 64 MiB, by design.

    Raises ConfigurationError without the extra `web`, and for a method beyond `MOST`.
    """
    try:
        # It needs the extra, and nothing else here does.
        from argon2.low_level import Type, hash_secret_raw
    except ImportError as error:
        raise ConfigurationError("passwords need the extra: install 'runfold[web]'") from error
    parts = _METHOD.fullmatch(method)
    costs = [int(part) for part in parts.groups()] if parts else []
    if not costs or any(not 1 <= cost <= most for cost, most in zip(costs, MOST, strict=True)):
        raise ConfigurationError(
            f"this program cannot make keys by {method!r}: upgrade it, or set the password anew"
        )
    passes, memory, lanes = costs
    return hash_secret_raw(
        password.encode(), salt, passes, memory, lanes, hash_len=32, type=Type.ID
    )
