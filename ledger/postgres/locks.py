"""Short transactions that wait for locks a little, several times, rather than long once.

Nobody waits behind them for longer than the limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from runfold.ledger.errors import LockTimeout
from runfold.ledger.postgres.connections import FAILURES, Pool
from runfold.ledger.postgres.errors import is_lost, translated

LOCK_TIMEOUT: Final = "2s"
TRIES: Final = 5
FIRST_PAUSE_SECONDS: Final = 0.2

Result = TypeVar("Result")


def lock_limit(patience: str | None = None) -> str:
    """Return the statement with which a transaction begins that waits so long for each lock.

    Without a patience that is LOCK_TIMEOUT.
    """
    return f"SET LOCAL lock_timeout = '{patience or LOCK_TIMEOUT}'"


async def retry_on_lock(transaction: Callable[[], Awaitable[Result]], what: str) -> Result:
    """Run a whole transaction again when it lost against another, five times at most.

    The transaction begins with `lock_limit()`. Raises LockTimeout, which says `what` stayed locked;
    any other error comes out at once, as it is.
    """
    holder: str | None = None
    for attempt in range(TRIES):
        try:
            return await transaction()
        except FAILURES as error:
            if not is_lost(error):
                raise
            waited = getattr(error, "sqlstate", None) == "55P03"
            holder = getattr(error, "hint", None) if waited else None
            if attempt + 1 < TRIES:
                await asyncio.sleep(FIRST_PAUSE_SECONDS * 2**attempt)
    raise LockTimeout(TRIES, LOCK_TIMEOUT, what, holder)


async def with_lock_retries(
    pool: Pool, work: Callable[[Any], Awaitable[Result]], what: str, project_id: str | None = None
) -> Result:
    """Do the work in such a transaction, on a connection of the pool; `work` takes the connection.

    Raises LockTimeout, and the database's errors as ledger errors.
    """

    async def transaction() -> Result:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(lock_limit())
            return await work(connection)

    try:
        return await retry_on_lock(transaction, what)
    except (*FAILURES, OSError) as error:
        raise translated(error, (project_id,)) from error
