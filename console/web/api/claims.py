"""Claims and heartbeats: how a worker gets runs, and keeps them."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request
from pydantic import Field

from runfold.console.web.api.shapes import MAX_WAIT, Sent, Shown, UnderLease, shown_lease
from runfold.console.web.callers import Worker, caller
from runfold.console.web.wakeups import Wakeups
from runfold.ledger import Ledger

router = APIRouter(tags=["work"])
MAX_CLAIMED: Final = 100
MAX_BEATS: Final = 1_000


class Claim(Sent):
    """The runs that a worker takes, and how long it waits for one."""

    worker_id: str
    kinds: list[str] | None = None
    limit: int = Field(1, ge=1, le=MAX_CLAIMED)
    ttl: float | None = Field(None, description="Seconds of the lease; else the server's default.")
    wait: float = Field(0, ge=0, le=MAX_WAIT, description="Seconds to wait for a run.")


class Beat(UnderLease):
    """A lease to keep, for `ttl` seconds from now."""

    run_id: str
    ttl: float = 60


class Beats(Sent):
    """The leases that a worker keeps."""

    leases: list[Beat] = Field(min_length=1, max_length=MAX_BEATS)


@router.post("/claims", operation_id="claim")
async def claim(request: Request, ledger: Worker, body: Claim) -> Shown:
    """Lease the oldest claimable runs; wait if there is none. Needs the right work.

    The list is empty if no run became claimable in time. Each write about a run carries its lease's
    `token` and `worker_id`. A caller that goes away while it waits claims nothing.
    """
    wakeups: Wakeups = request.app.state.wakeups
    ending: asyncio.Event = request.app.state.ending
    until = time.monotonic() + body.wait
    while True:
        leases = await ledger.claim(
            body.worker_id, limit=body.limit, kinds=body.kinds, ttl=body.ttl
        )
        left = until - time.monotonic()
        if leases or left <= 0 or ending.is_set():
            return {"leases": [shown_lease(lease) for lease in leases]}
        pause = min(left, ledger.settings.poll_seconds)
        await wakeups.wait(ledger.project_id, pause, ending)
        if await request.is_disconnected():
            return {"leases": []}


@router.post("/heartbeats", operation_id="heartbeat")
async def heartbeat(
    ledger: Annotated[Ledger, Depends(caller("work", beat=True))], body: Beats
) -> Shown:
    """Keep leases, all in one statement. Needs the right work.

    A lost lease is marked `lost` and is no error, because an error would hide the other leases.
    Stop work on a run whose lease is `lost`, or which has `cancel_requested`.
    """
    leases = await ledger.heartbeat([beat.lease(beat.run_id, beat.ttl) for beat in body.leases])
    return {
        "leases": [{name: shown_lease(lease)[name] for name in _BEAT_MEMBERS} for lease in leases]
    }


_BEAT_MEMBERS: Final = (
    "run_id", "token", "worker_id", "until", "lost", "cancel_requested", "late_ms",
)  # fmt: skip
