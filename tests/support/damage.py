"""Damage that is undone, so that many cases of it need one database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg


async def keep(connection: asyncpg.Connection[Any], tables: Iterable[str]) -> None:
    """Copy tables of the ledger, for this session, as `undone` puts them back."""
    for table in tables:
        await connection.execute(f"CREATE TEMP TABLE kept_{table} AS TABLE ledger.{table}")


@asynccontextmanager
async def undone(connection: asyncpg.Connection[Any], tables: Iterable[str]) -> AsyncIterator[None]:
    """Put back, in the end, the rows that were kept; no trigger of the tables may be enabled."""
    try:
        yield
    finally:
        for table in tables:
            await connection.execute(
                f"DELETE FROM ledger.{table};INSERT INTO ledger.{table} SELECT * FROM kept_{table}"
            )
