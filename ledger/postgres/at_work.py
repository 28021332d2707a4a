"""What one session does alone in a database, or shares with others, such as a rebuild."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg

from runfold.ledger.postgres.own_session import check_own_session

_BEGIN: Final = "SELECT ledger.begin_work($1, $2)"
_END: Final = "SELECT ledger.end_work($1)"
_PAUSE_SECONDS: Final = 0.1


@asynccontextmanager
async def at_work(
    connection: Any, name: str, *, shared: bool = False, wait_seconds: float = 0.0
) -> AsyncIterator[None]:
    """Hold the work of this name while the block lasts.

    Raises asyncpg.LockNotAvailableError, which names who is at work on it, when the wait is over;
    ConfigurationError behind a pooler.
    """
    await check_own_session(connection)
    key = await _begun(connection, name, shared=shared, wait_seconds=wait_seconds)
    try:
        yield
    finally:
        await connection.execute(_END, key)


async def _begun(connection: Any, name: str, *, shared: bool, wait_seconds: float) -> int:
    began = time.monotonic()
    while True:
        try:
            key: int = await connection.fetchval(_BEGIN, name, shared)
        except asyncpg.LockNotAvailableError:
            if time.monotonic() - began >= wait_seconds:
                raise
            await asyncio.sleep(_PAUSE_SECONDS)
        else:
            return key
