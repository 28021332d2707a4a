"""Dropping a projection, or the tables that its rebuilds left behind."""

from __future__ import annotations

from typing import Final

from runfold.ledger.postgres.connections import Pool, fetch
from runfold.projections.declared.status import require

_DROP_REPLACED: Final = "SELECT * FROM ledger.drop_projection_tables($1) AS name"
_DROP: Final = "SELECT * FROM ledger.drop_projection_tables($1, p_all => true) AS name"


async def drop_replaced(pool: Pool, name: str) -> list[str]:
    """Drop the tables that finished rebuilds of the projection left behind; return their names."""
    return [row["name"] for row in await fetch(pool, _DROP_REPLACED, name)]


async def drop(pool: Pool, name: str) -> list[str]:
    """Drop the projection: its view, tables and checkpoint; return the tables' names.

    Raises ProjectionNotFound for one that is not installed.
    """
    await require(pool, name)
    return [row["name"] for row in await fetch(pool, _DROP, name)]
