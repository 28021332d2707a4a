"""Waiting for something to become true: polled with a deadline, never slept for luck."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from runfold.ledger import Lease, Ledger

LONGEST_PAUSE = 0.1


async def until(predicate: Callable[[], Any], seconds: float = 10) -> None:
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


async def blocked(ledger: Ledger, pid: int) -> None:
    """Return once a backend waits for a lock that another one holds."""
    await until(lambda: ledger.pool.fetchval("SELECT cardinality(pg_blocking_pids($1)) > 0", pid))
