"""The lock that one upgrade of a database holds at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import asyncpg

from runfold.ledger.errors import DatabaseUnavailable
from runfold.ledger.postgres.own_session import check_own_session

WAIT_SECONDS: Final = 60.0
_PAUSE_SECONDS: Final = 0.1

_NO_TIMEOUTS: Final = """
SELECT set_config(setting.name, '0', true) FROM pg_settings AS setting
WHERE setting.name IN ('idle_in_transaction_session_timeout', 'transaction_timeout')
"""
_IS_INSTALLED: Final = "SELECT to_regclass('ledger.at_work') IS NOT NULL"
# Only the owner of the ledger can take it: no other login stops an upgrade. And no upgrade takes
# such a lock of this table for another purpose.
_LOCK: Final = "LOCK TABLE ledger.at_work IN SHARE UPDATE EXCLUSIVE MODE NOWAIT"
# Before there is a table. Any login that may connect can hold it.
_TRY_FIRST: Final = "SELECT pg_try_advisory_xact_lock(hashtextextended('ledger.upgrade', 0))"
_HOLDER: Final = """
SELECT format('process %s (%s, login %s%s, connected since %s)', session.pid,
  session.application_name, session.usename, ', from ' || host(session.client_addr),
  to_char(session.backend_start, 'YYYY-MM-DD HH24:MI:SSOF'))
FROM pg_locks AS lock JOIN pg_stat_activity AS session ON session.pid = lock.pid
WHERE lock.granted AND lock.database = (SELECT database.oid FROM pg_database AS database
    WHERE database.datname = current_database())
  AND (lock.relation = to_regclass('ledger.at_work') AND lock.mode = 'ShareUpdateExclusiveLock'
    OR lock.locktype = 'advisory'
    AND (lock.classid::bigint << 32 | lock.objid::bigint) = hashtextextended('ledger.upgrade', 0))
"""


@asynccontextmanager
async def upgrade_lock(connection: asyncpg.Connection[Any]) -> AsyncIterator[None]:
    """Hold the database's upgrade lock by a transaction of a connection that does nothing else.

    It is tried again and again, not queued for, and held without a snapshot: an index that is built
    concurrently would wait for a session that has one. Raises DatabaseUnavailable, which names the
    holder, if another session has it for WAIT_SECONDS; ConfigurationError behind a pooler.
    """
    await check_own_session(connection)
    deadline = time.monotonic() + WAIT_SECONDS
    while not await _taken(connection):
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
            await connection.execute("ROLLBACK")


async def _taken(connection: asyncpg.Connection[Any]) -> bool:
    """Whether a new transaction of the connection has the lock; if not, it has ended."""
    await connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
    try:
        await connection.execute(_NO_TIMEOUTS)
        if not await connection.fetchval(_IS_INSTALLED):
            taken = await connection.fetchval(_TRY_FIRST)
            if taken and not await connection.fetchval(_IS_INSTALLED):
                return True
        else:
            await connection.execute(_LOCK)
            return True
    except asyncpg.LockNotAvailableError:
        pass
    except BaseException:
        await connection.execute("ROLLBACK")
        raise
    await connection.execute("ROLLBACK")
    return False
