"""Web sessions: begun by a sign-in to the pages, kept by the database, ended by it at once."""

from __future__ import annotations

import asyncio
import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Final
from weakref import WeakValueDictionary

from runfold.ledger.access import EVERYWHERE
from runfold.ledger.api_tokens import SECRET_PREFIX
from runfold.ledger.operations.project import Project
from runfold.ledger.postgres.connections import Pool, fetch
from runfold.ledger.reading.permitted import check_found
from runfold.ledger.users import MAX_PASSWORD, METHOD, key_of
from runfold.ledger.validation import check_text

SESSION_PREFIX: Final = f"{SECRET_PREFIX}session_"
"""How the secret of a session begins."""
SESSION_SECONDS: Final = 12 * 3_600
"""The longest life of a session. The database decides."""
IDLE_SECONDS: Final = 2 * 3_600
"""How long a session lasts after its last use."""
_KEYS: Final = ThreadPoolExecutor(2, "runfold-keys")
"""Where keys are made: each takes 64 MiB, so two at a time."""
_TURNS: Final = WeakValueDictionary[tuple[asyncio.AbstractEventLoop, str], asyncio.Lock]()
"""One for each user who signs in: of one user, one try at a time is on record."""
_BY_TOKEN: Final = "SELECT ledger.sign_in_by_token($1, $2) AS credential"  # noqa: S105
_METHOD: Final = "SELECT method, salt FROM ledger.password_method($1)"
_BY_PASSWORD: Final = "SELECT ledger.sign_in_by_password($1, $2, $3) AS credential"  # noqa: S105
_BY_PROVIDER: Final = "SELECT ledger.sign_in_by_provider($1, $2, $3) AS credential"
_END: Final = "SELECT ledger.end_session($1, $2) AS ended"
_SESSIONS: Final = f"""
SELECT session.session_id, session.credential, session.created_at, session.expires_at,
  session.last_used_at, session.ended_at
FROM ledger.web_session AS session
WHERE session.ended_at IS NULL AND session.expires_at > (SELECT ledger.now())
  AND session.last_used_at > ledger.now() - interval '{IDLE_SECONDS} seconds'
  AND (session.user_changed_at IS NULL OR EXISTS (SELECT FROM ledger.user_account AS account
    WHERE session.credential = 'user:' || account.name AND account.disabled_at IS NULL
      AND account.changed_at = session.user_changed_at))
ORDER BY session.created_at, session.session_id
"""


@dataclass(frozen=True, slots=True)
class WebSession:
    """A session. Its secret is not in it: only a digest is kept."""

    session_id: str
    credential: str
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime
    ended_at: datetime | None


async def by_token(pool: Pool, token: str) -> str | None:
    """Begin a session for the secret of an API token; return its secret, or None if refused."""
    check_text("token", token)
    return await _begun(pool, _BY_TOKEN, token)


async def by_password(pool: Pool, name: str, password: str) -> str | None:
    """Begin a session of a user; return its secret, or None if refused.

    A name that nobody has costs the same time as a wrong password. The database compares the key:
    a server that does not know the password cannot begin the session.
    """
    check_text("user", name)
    secret, digest = _new_secret()
    methods = await fetch(pool, _METHOD, name)
    method, salt = (methods[0]["method"], methods[0]["salt"]) if methods else (METHOD, bytes(16))
    tried = password[: MAX_PASSWORD + 1]
    loop = asyncio.get_running_loop()
    key = await loop.run_in_executor(_KEYS, key_of, tried, method, salt)
    # The first call puts the try on record, the next one is answered. A third one: a sign-in of the
    # same user through another server may have come between.
    async with _TURNS.setdefault((loop, name), asyncio.Lock()):
        for _ in range(3):
            if (await fetch(pool, _BY_PASSWORD, name, key, digest))[0]["credential"] is not None:
                return secret
    return None


async def by_provider(pool: Pool, issuer: str, subject: str) -> str | None:
    """Begin a session of the user that an identity provider named; None if there is no such user.

    Needs the right admin in all projects, because the caller vouches for the provider's word.
    """
    check_text("issuer", issuer)
    check_text("subject", subject)
    return await _begun(pool, _BY_PROVIDER, issuer, subject)


async def _begun(pool: Pool, statement: str, *facts: Any) -> str | None:
    secret, digest = _new_secret()
    [row] = await fetch(pool, statement, *facts, digest)
    return None if row["credential"] is None else secret


def _new_secret() -> tuple[str, bytes]:
    """Return a secret and its digest."""
    secret = SESSION_PREFIX + secrets.token_urlsafe(32)
    return secret, sha256(secret.encode()).digest()


async def end(pool: Pool, secret: str) -> bool:
    """End the session of a secret; return whether it could still be used."""
    [row] = await fetch(pool, _END, check_text("session", secret), None)
    return bool(row["ended"])


async def end_by_id(project: Project, session_id: str) -> bool:
    """End somebody's session; needs the right admin in all projects."""
    [row] = await fetch(project.pool, _END, None, check_text("session", session_id))
    return bool(row["ended"])


async def sessions(project: Project) -> list[WebSession]:
    """Return the sessions that have not ended, the oldest first.

    Needs the right admin or audit in all projects.
    """
    rows = await fetch(project.pool, _SESSIONS)
    await check_found(rows, project.pool, EVERYWHERE, "admin", "audit")
    return [WebSession(**row) for row in rows]
