"""Short transactions that wait for locks a little, several times, rather than long once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import asyncpg

from runfold.ledger.postgres.connections import FAILURES, Pool
from runfold.ledger.postgres.errors import translated
from runfold.projections.errors import LockTimeout

LOCK_TIMEOUT: Final = "2s"
TRIES: Final = 5

Result = TypeVar("Result")


async def with_lock_retries(
    pool: Pool, work: Callable[[Any], Awaitable[Result]], what: str, project_id: str | None = None
) -> Result:
    """Do the work in a transaction that waits two seconds at most for a lock; try five times.

    `work` takes the connection. Raises LockTimeout, which says `what` stayed locked.
    """
    for attempt in range(1, TRIES + 1):
        try:
            async with pool.acquire() as connection, connection.transaction():
                await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
                return await work(connection)
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            await asyncio.sleep(0.1 * 2**attempt)
        except (*FAILURES, OSError) as error:
            raise translated(error, (project_id,)) from error
    raise LockTimeout(TRIES, LOCK_TIMEOUT, what)
