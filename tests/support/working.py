"""Workers that a test starts, and that must end with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from runfold.ledger import Ledger, Run, State
from runfold.ledger.events import LeaseReleased
from runfold.workers import Backoff, Handler, Worker
from tests.support.waiting import BOUND, until

FAST = {
    "RUNFOLD_LEASE_TTL_SECONDS": "1.2",
    "RUNFOLD_HEARTBEAT_SECONDS": "0.2",
    "RUNFOLD_REAPER_SECONDS": "0.2",
    "RUNFOLD_POLL_SECONDS": "0.05",
}
"""Settings under which leases lapse while a test can wait for it."""
AT_ONCE = Backoff(first=0, jitter=0)
"""The backoff of handlers that are retried at once."""
BRIEF = {"RUNFOLD_LEASE_TTL_SECONDS": "2.5"}
"""The setting where leases are to lapse with their worker, and not because it is held up."""
LONG = {"RUNFOLD_LEASE_TTL_SECONDS": "10"}
"""The setting of those whose leases are not to lapse, however busy the machine is."""


@asynccontextmanager
async def working(
    ledger: Ledger, *handlers: Handler[..., Any], **options: Any
) -> AsyncIterator[Worker]:
    """Have a worker at work; in the end it stops as a supervisor would stop it."""
    worker = Worker(ledger, handlers, **{"poll": 0.05, "grace": 5, "reap": False, **options})
    async with worker:
        yield worker


async def ended(ledger: Ledger, run: Run | UUID, seconds: float = BOUND) -> Run:
    """Return the run when it has ended."""
    run_id = run.run_id if isinstance(run, Run) else run
    return await asyncio.wait_for(ledger.wait(run_id), seconds)


async def reached(ledger: Ledger, run: Run, state: State, seconds: float = BOUND) -> Run:
    """Return the run when it is in a state."""
    found = await asyncio.wait_for(ledger.wait(run.run_id, state=state), seconds)
    assert found.state == state
    return found


async def given_back(ledger: Ledger, run: Run, seconds: float = BOUND) -> LeaseReleased:
    """Return the event by which a worker gave back a run that does not fit its handler."""
    events: list[LeaseReleased] = []

    async def is_given_back() -> bool:
        events[:] = [
            event
            for event in await ledger.history(run.run_id)
            if isinstance(event, LeaseReleased) and event.error_code is not None
        ]
        return bool(events)

    await until(is_given_back, seconds)
    return events[-1]


async def done(ledger: Ledger, handler: Handler[..., Any], given: Any = None, **submit: Any) -> Run:
    """Submit a run and give it when a worker has brought it to its end."""
    run = await ledger.submit(handler.kind, given, **submit)
    async with working(ledger, handler):
        return await ended(ledger, run)
