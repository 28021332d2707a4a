"""Waiting for something to become true: polled with a deadline, never slept for luck."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import asyncpg

from runfold.ledger import Lease, Ledger

BOUND = 120.0
"""Seconds that a wait may take before it is in vain: a busy machine is slow, not wrong."""
LONGEST_PAUSE = 0.1


async def until(predicate: Callable[[], Any], seconds: float = BOUND) -> None:
    """Return once the predicate, plain or async, is true; fail after `seconds`.

    It is asked less often the longer it takes: each time may be a statement to a busy server.
    """
    started = time.monotonic()
    deadline = started + seconds
    while True:
        result = predicate()
        if inspect.isawaitable(result):
            result = await result
        if result:
            return
        assert time.monotonic() < deadline, f"waited in vain: {result!r}"
        waited = time.monotonic() - started
        await asyncio.sleep(min(LONGEST_PAUSE, max(0.01, waited / 10)))


async def passed(ledger: Ledger, instant: datetime | None) -> None:
    """Return once the database's clock is past an instant."""
    assert instant is not None
    await until(lambda: ledger.pool.fetchval("SELECT clock_timestamp() > $1", instant))


async def lapsed(ledger: Ledger, *leases: Lease) -> None:
    """Return once every lease is past its end."""
    await passed(ledger, max(lease.until for lease in leases))


WAIT_FOR_THIS_SESSION = (
    "SELECT count(*) >= $1 FROM pg_locks "
    "WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid))"
)
"""Unlike pg_stat_activity, pg_locks is read anew by each statement of a transaction."""


async def awaited(connection: asyncpg.Connection[Any], sessions: int = 1) -> None:
    """Return once `sessions` sessions wait for locks that this connection holds."""
    await until(lambda: connection.fetchval(WAIT_FOR_THIS_SESSION, sessions))


async def blocked(ledger: Ledger, pid: int) -> None:
    """Return once a backend waits for a lock that another one holds."""
    await until(lambda: ledger.pool.fetchval("SELECT cardinality(pg_blocking_pids($1)) > 0", pid))
