"""Dropping a projection, or the tables that its rebuilds left behind."""

from __future__ import annotations

from typing import Any, Final

from runfold.ledger.postgres.connections import Pool
from runfold.ledger.postgres.locks import with_lock_retries
from runfold.projections.declared.status import require
from runfold.projections.rebuild import give_up

_DROP: Final = "SELECT * FROM ledger.drop_projection_tables($1, p_all => $2) AS name"


async def drop_replaced(pool: Pool, name: str) -> list[str]:
    """Drop the tables that rebuilds of the projection left behind; return their names.

    A rebuild that was broken off, and that no process resumes now, is given up. Raises
    ProjectionNotFound if there are none and the projection is not installed, and LockTimeout while
    somebody reads them.
    """
    await give_up(pool, name)
    dropped = await _drop(pool, name, everything=False)
    if not dropped:
        await require(pool, name)
    return dropped


async def drop(pool: Pool, name: str) -> list[str]:
    """Drop the projection: its view, tables and checkpoint; return the tables' names.

    No event is touched. Raises ProjectionNotFound for one that is not installed, and LockTimeout
    while somebody reads it.
    """
    await require(pool, name)
    return await _drop(pool, name, everything=True)


async def _drop(pool: Pool, name: str, *, everything: bool) -> list[str]:
    async def work(connection: Any) -> list[str]:
        return [row["name"] for row in await connection.fetch(_DROP, name, everything)]

    return await with_lock_retries(pool, work, f"projection {name}")
