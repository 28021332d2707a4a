"""A project as an operator meets it: refunds that went wrong, one to sign, and runs that go on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import asyncpg

from runfold.ledger import Lease, Ledger
from runfold.ledger.events import StepCompleted
from runfold.projections import CatchUp, install
from runfold.projections.declared.installing import declared
from runfold.workers.duties.webhooks.deliverer import Terms
from runfold.workers.duties.webhooks.posting import Answer, Poster
from runfold.workers.duties.webhooks.sender import WebhookSender
from tests.support.clock import set_clock

MINUTES_AGO = 14


@dataclass(frozen=True, slots=True)
class Filled:
    """What the tests ask for by id."""

    asking: str
    """A run with three attempts, that waits for two signatures."""
    running: str
    webhook: str
    """A webhook whose endpoint is down."""


class Down(Poster):
    """An endpoint that answers nobody."""

    async def post(self, *_: Any, **__: Any) -> Answer:
        """Answer as a server that is down."""
        return Answer(503, "the endpoint is down", 12)


class Storyteller:
    """Tells the past of a project: its clock begins some minutes ago and is moved on."""

    def __init__(self, ledger: Ledger, connection: asyncpg.Connection) -> None:
        self._ledger, self._connection = ledger, connection
        self._off = timedelta(minutes=-MINUTES_AGO)

    async def later(self, seconds: float) -> None:
        """Let so much time pass."""
        self._off += timedelta(seconds=seconds)
        await set_clock(self._connection, self._off)

    async def tell(self) -> Filled:
        """Fill the project, up to now."""
        await self.later(0)
        await self._earlier_runs()
        asking = await self._refund()
        self._off = timedelta()
        await self.later(0)
        running = await self._present()
        webhook = await self._told()
        for name in ("run_counts", "spending"):
            projection = declared(())[name]
            await install(self._ledger.pool, projection)
            await CatchUp(self._ledger.pool, projection).to_the_end()
        return Filled(str(asking), str(running), webhook)

    async def _told(self) -> str:
        sender = WebhookSender(self._ledger, Terms(Down(), "https://console.example"))
        webhook, _ = await self._ledger.webhooks.add(
            "https://example.com/hook", events=["run.submitted"]
        )
        await self._ledger.submit("report", {"month": 4})
        await sender.once()
        return webhook

    async def _earlier_runs(self) -> None:
        ledger = self._ledger
        for number in range(9):
            await ledger.submit("parse", {"path": f"src/part_{number}.py"}, tags=["nightly"])
            [lease] = await ledger.claim("worker-1", kinds=["parse"])
            await self.later(7)
            if number in {3, 6}:
                await ledger.fail(lease, "E-SYNTAX", error_detail={"line": 12 + number})
            else:
                await ledger.complete(lease, output={"lines": 210}, cost_usd_delta=0.002)
        await ledger.schedule("nightly", "parse", {"path": "src"}, cron="0 3 * * *")
        await ledger.pause_kind("report", reason="the warehouse is down", ahead=True)

    async def _refund(self) -> object:
        """Lose a lease, fail an attempt, and ask two people."""
        ledger = self._ledger
        run = await ledger.submit(
            "refund", {"order": "A-17", "amount": 250}, key="A-17", tags=["eu", "vip"]
        )
        await self.later(2)
        [lost] = await ledger.claim("worker-3", kinds=["refund"], ttl=30)
        lost = await self._beats(lost, 5)
        await ledger.append(lost, StepCompleted(name="check", output={"limit": 300}))
        await self.later(44)
        await ledger.reap()
        await ledger.heartbeat([lost])  # too late: refused, and recorded
        await self.later(6)
        [lease] = await ledger.claim("worker-7", kinds=["refund"], ttl=30)
        await ledger.ask_tool(lease, "stripe.lookup", {"order": "A-17"})
        lease = await self._beats(lease, 3)
        await ledger.answer(lease, {"paid": 250}, cost_usd_delta=0.02)
        await self.later(5)
        await ledger.retry(lease, delay=8, error_code="E-TIMEOUT", error_detail="no answer in 5 s")
        await self.later(9)
        [lease] = await ledger.claim("worker-7", kinds=["refund"], ttl=30)
        lease = await self._beats(lease, 2)
        await ledger.ask_approval(
            lease, "Refund $250 on A-17?", show={"order": "A-17", "amount": 250}, approvals=2
        )
        return run.run_id

    async def _beats(self, lease: Lease, count: int) -> Lease:
        for _ in range(count):
            await self.later(5)
            [lease] = await self._ledger.heartbeat([lease])
        return lease

    async def _present(self) -> object:
        ledger = self._ledger
        running = await ledger.submit("review", {"path": "app.py"}, tags=["large"])
        await ledger.claim("worker-2", kinds=["review"], ttl=600)
        for number in range(3):
            await ledger.submit("report", {"month": number + 1})
        return running.run_id
