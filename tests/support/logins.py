"""Logins with exactly the roles that a test names."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from runfold.ledger.postgres.urls import driver_url


@asynccontextmanager
async def with_login(url: str, *roles: str) -> AsyncIterator[str]:
    """Make a login with these roles; give the database's URL for it, and remove it at the end."""
    name, password = f"login_{secrets.token_hex(6)}", secrets.token_hex(8)
    own = url.replace("postgres@", f"{name}:{password}@", 1)
    if own == url:
        pytest.skip("the server's URL is not a superuser's without a password")
    superuser = await asyncpg.connect(driver_url(url))
    try:
        granted = f" IN ROLE {', '.join(roles)}" if roles else ""
        await superuser.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{password}'{granted}")
        yield own
        await superuser.execute(f"REASSIGN OWNED BY {name} TO CURRENT_USER")
        await superuser.execute(f"DROP OWNED BY {name}")
        await superuser.execute(f"DROP ROLE {name}")
    finally:
        await superuser.close()
