"""Logins with exactly the roles that a test names."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import asyncpg

from runfold.ledger.postgres.urls import driver_url


@asynccontextmanager
async def with_login(
    url: str, *roles: str, rights: Sequence[str] = (), project: str = "test"
) -> AsyncIterator[str]:
    """Make a login with these roles and rights; yield the database's URL for it; remove it."""
    name, password = f"login_{secrets.token_hex(6)}", secrets.token_hex(8)
    superuser = await asyncpg.connect(driver_url(url))
    try:
        granted = f" IN ROLE {', '.join(roles)}" if roles else ""
        await superuser.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{password}'{granted}")
        if rights:
            await grant(superuser, name, rights, project=project)
        yield as_login(url, name, password)
        await superuser.execute(f"REASSIGN OWNED BY {name} TO CURRENT_USER")
        await superuser.execute(f"DROP OWNED BY {name}")
        await superuser.execute(f"DROP ROLE {name}")
    finally:
        await superuser.close()


def as_login(url: str, name: str, password: str) -> str:
    """Return the URL for another login of the same server."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{name}:{password}@{host}").geturl()


def login_of(url: str) -> str:
    """Return the login that a URL of `with_login` names."""
    return url.split("//")[1].split(":", maxsplit=1)[0]


async def grant(
    connection: asyncpg.Connection,
    credential: str,
    rights: Sequence[str],
    *,
    project: str = "test",
    actors: Sequence[str] = ("*",),
) -> None:
    """Grant a credential rights in a project, speaking for whomever it likes."""
    await connection.execute(
        "SELECT ledger.change_access($1, 'tests', $2, $3, $4, NULL, NULL)",
        project,
        credential,
        list(rights),
        list(actors),
    )


async def channel(connection: asyncpg.Connection, project: str = "test") -> str:
    """Return the channel of a project's wake-ups."""
    name: str = await connection.fetchval("SELECT ledger.channel($1)", project)
    return name
