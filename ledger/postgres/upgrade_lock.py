"""The lock that one upgrade of a database holds at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import asyncpg

from runfold.ledger.errors import DatabaseUnavailable

WAIT_SECONDS: Final = 60.0
_PAUSE_SECONDS: Final = 0.1

_TRY: Final = "SELECT pg_try_advisory_lock(hashtextextended('ledger.upgrade', 0))"
_UNLOCK: Final = "SELECT pg_advisory_unlock(hashtextextended('ledger.upgrade', 0))"
_HOLDER: Final = """
SELECT format('process %s (%s, login %s%s, connected since %s)', a.pid, a.application_name,
  a.usename, ', from ' || host(a.client_addr), to_char(a.backend_start, 'YYYY-MM-DD HH24:MI:SSOF'))
FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted
  AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
  AND (l.classid::bigint << 32 | l.objid::bigint) = hashtextextended('ledger.upgrade', 0)
"""


@asynccontextmanager
async def upgrade_lock(connection: asyncpg.Connection[Any]) -> AsyncIterator[None]:
    """Hold the database's upgrade lock on a connection.

    It is tried for and not queued for: a session that waits for a lock has a snapshot, and an
    index that is built concurrently would wait for that. Raises DatabaseUnavailable, which names
    the holder, if another session has it for WAIT_SECONDS.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    while not await connection.fetchval(_TRY):
        if time.monotonic() >= deadline:
            holder = await connection.fetchval(_HOLDER) or "a session that has just ended"
            raise DatabaseUnavailable(
                "the upgrade's lock",
                f"{holder} has held it for {WAIT_SECONDS:g} s: wait for its end, or end it, "
                "and upgrade again",
            )
        await asyncio.sleep(_PAUSE_SECONDS)
    try:
        yield
    finally:
        with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            await connection.fetchval(_UNLOCK)
