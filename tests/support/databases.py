"""The databases of tests: their project, their names, and the check that each of them ends with."""

from __future__ import annotations

import uuid
from typing import Final
from urllib.parse import urlsplit

import asyncpg

from runfold.ledger.postgres.urls import driver_url
from runfold.ledger.reading.verify import verify

PROJECT: Final = "test"


def copy_of(template: str) -> tuple[str, str, str]:
    """Return a new name, and the statements that make and drop a database of that name."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    make = f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy"
    return name, make, f"DROP DATABASE {name} WITH (FORCE)"


def with_database(url: str, name: str) -> str:
    """Point a URL at another database of the same server."""
    parts = urlsplit(url)
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc}/{name}{query}"


def name_of(url: str) -> str:
    """Return the name of the database that a URL leads to."""
    return urlsplit(url).path[1:]


def sqlalchemy_url(url: str) -> str:
    """Return the URL with the scheme that SQLAlchemy takes."""
    return driver_url(url).replace("://", "+asyncpg://", 1)


async def execute(url: str, statement: str) -> None:
    """Run a statement on a connection of its own."""
    opened = await asyncpg.connect(driver_url(url))
    try:
        await opened.execute(statement)
    finally:
        await opened.close()


async def assert_consistent(url: str) -> None:
    """Fail unless every project of the database verifies."""
    async with asyncpg.create_pool(driver_url(url), min_size=1, max_size=1) as pool:
        await assert_verified(pool)


async def assert_verified(pool: asyncpg.Pool) -> None:
    """Fail unless every project verifies in the sessions of this pool."""
    for row in await pool.fetch("SELECT project_id FROM ledger.project"):
        report = await verify(pool, row["project_id"])
        assert not report.findings
