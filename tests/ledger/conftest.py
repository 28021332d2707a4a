"""What tests of access share: another project, and a login that has no right in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from runfold.ledger import Ledger
from runfold.ledger.postgres.urls import driver_url
from tests.support.logins import with_login

OTHER = "other"
WORKING = ("submit", "work", "read", "schedule")


@pytest.fixture
async def other(database: str) -> AsyncIterator[Ledger]:
    """The owner's ledger of another project, with a run that waits and one that is held."""
    async with Ledger.open(database, OTHER, create_project=True) as opened:
        yield opened


@pytest.fixture
async def attacker_url(database: str) -> AsyncIterator[str]:
    """The URL of a login that works in project `test` only."""
    async with with_login(database, "runfold_worker", rights=WORKING) as url:
        yield url


@pytest.fixture
async def attacker(attacker_url: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """That login's own connection."""
    connection = await asyncpg.connect(driver_url(attacker_url))
    yield connection
    await connection.close()
