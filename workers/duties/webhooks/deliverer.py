"""Delivers to one webhook: reads the feed, queues deliveries, sends them and records each end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from runfold.ledger import Ledger, log, names
from runfold.ledger.errors import CheckpointUnknown, FeedArchived
from runfold.ledger.events import Event
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.reading import feed
from runfold.ledger.reading.feed import Checkpoint, Filter
from runfold.ledger.reading.subscription import Pauses
from runfold.ledger.webhooks import delivery_id
from runfold.workers.duties.duty import jittered
from runfold.workers.duties.webhooks.posting import Answer, Poster

PAGE: Final = 500
AT_ONCE: Final = 8
"""How many requests one webhook gets at a time."""
NOTE_SECONDS: Final = 5.0
"""How often the checkpoint is recorded while there is nothing to deliver."""
PAUSES_SECONDS: Final = (
    5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400,
)  # fmt: skip
"""The pauses between attempts of Standard Webhooks; after the last, the delivery is given up."""

DUTIES: Final = "SELECT * FROM ledger.webhook_duties($1)"
_QUEUE: Final = "SELECT ledger.queue_deliveries($1, $2, $3, $4, $5, $6, $7, $8) AS noted"
_DUE: Final = "SELECT * FROM ledger.due_deliveries($1, $2, $3, $4)"
_RECORD: Final = "SELECT ledger.record_attempt($1, $2, $3, $4, $5, $6, $7, $8, $9)"


@dataclass(frozen=True, slots=True)
class Terms:
    """How deliveries are made."""

    poster: Poster
    console: str = ""
    """The address that links begin with."""
    lease: float = 60.0
    """The seconds after which a delivery without a record is due again."""


class Deliverer:
    """Delivers events to one webhook from its checkpoint on; any number of senders may."""

    def __init__(self, ledger: Ledger, duty: Mapping[str, Any], terms: Terms) -> None:
        """`duty` is a row of ledger.webhook_duties."""
        self._ledger, self._terms = ledger, terms
        self._id, self._url, self._secret = duty["webhook_id"], duty["url"], duty["secret"]
        self._recorded = str(duty["checkpoint"])
        self._checkpoint: Checkpoint | None = None
        self._noted_at = 0.0
        self._told: str | None = None
        events, kinds = list(duty["events"]), list(duty["kinds"])
        without = None if events else ["lease.heartbeat"]
        self._which = Filter(ledger.project_id, events or None, without, kinds or None)

    async def run(self) -> None:
        """Read and send until cancelled, or until the webhook is paused or removed."""
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(self._send_for_ever())
            await self._read_for_ever()
            sending.cancel()

    async def once(self) -> None:
        """Deliver what is new and due now."""
        while await self.read() is not None:
            pass
        while await self.send():
            pass

    async def read(self) -> bool | None:
        """Read a page of the feed and queue deliveries; return whether this sender was first.

        None: nothing is new. Raises CheckpointUnknown or FeedArchived.
        """
        pool = self._ledger.pool
        if self._checkpoint is None:
            self._checkpoint = Checkpoint.kept(self._recorded)
        towards = await feed.towards(pool, self._checkpoint, PAGE)
        if towards is None:
            return None
        events, self._checkpoint = await feed.read(pool, towards, PAGE, self._which)
        now = asyncio.get_running_loop().time()
        if not events and now - self._noted_at < NOTE_SECONDS:
            return True
        self._noted_at = now
        return await self._queue(events)

    async def send(self) -> int:
        """Send what is due, at most `AT_ONCE`; return how many deliveries were sent."""
        lease = timedelta(seconds=self._terms.lease)
        values = (self._ledger.project_id, self._id, AT_ONCE, lease)
        due = await fetch(self._ledger.pool, _DUE, *values)
        await asyncio.gather(*(self._deliver(row) for row in due))
        return len(due)

    async def _read_for_ever(self) -> None:
        pauses = Pauses()
        while True:
            try:
                is_first = await self.read()
            except (CheckpointUnknown, FeedArchived) as error:
                # What is queued is sent all the same.
                self._tell(str(error))
                await asyncio.sleep(NOTE_SECONDS)
                if not await self._continue_from_recorded():
                    return
                continue
            if is_first is None:
                await pauses.pause()
            elif is_first or await self._continue_from_recorded():
                pauses.restart()
            else:
                return

    def _tell(self, problem: str) -> None:
        """Log, once, what keeps the webhook from going on, and what a person can do."""
        if problem != self._told:
            self._told = problem
            again = f"`runfold webhooks pause {self._id}`, and `resume --from-now`"
            log.logger(project_id=self._ledger.project_id, webhook=self._id).error(
                names.WEBHOOK_FAILED, reason=f"{problem}; or {again} to send what is new"
            )

    async def _continue_from_recorded(self) -> bool:
        """Take the recorded checkpoint; return False if the webhook is gone or paused."""
        for duty in await fetch(self._ledger.pool, DUTIES, self._ledger.project_id):
            if duty["webhook_id"] == self._id:
                self._recorded, self._checkpoint = str(duty["checkpoint"]), None
                return True
        return False

    async def _send_for_ever(self) -> None:
        pauses = Pauses()
        while True:
            if await self.send():
                pauses.restart()
            else:
                await pauses.pause()

    async def _queue(self, events: Sequence[Event]) -> bool:
        facts = (
            [event.run_id for event in events],
            [event.version for event in events],
            [event.type for event in events],
            [self._body(event) for event in events],
        )
        checkpoint = str(self._checkpoint)
        where = (self._ledger.project_id, self._id, self._recorded, checkpoint)
        [row] = await fetch(self._ledger.pool, _QUEUE, *where, *facts)
        self._recorded = checkpoint
        return bool(row["noted"])

    def _body(self, event: Event) -> str:
        project, run = self._ledger.project_id, event.run_id
        state = getattr(event, "state", None)
        data = {
            "project": project,
            "run_id": str(run),
            "version": event.version,
            "state": None if state is None else str(state),
            "link": f"{self._terms.console}/p/{project}/runs/{run}",
        }
        assert event.recorded_at is not None
        message = {"type": event.type, "timestamp": event.recorded_at.isoformat(), "data": data}
        return json.dumps(message, separators=(",", ":"))

    async def _deliver(self, due: Mapping[str, Any]) -> None:
        message = delivery_id(self._id, due["run_id"], due["version"], due["body"])
        answer = await self._terms.poster.post(self._url, self._secret, message, due["body"])
        await self._record(due, answer)

    async def _record(self, due: Mapping[str, Any], answer: Answer) -> None:
        attempt, again = due["attempts"] + 1, None
        if answer.error is not None and attempt <= len(PAUSES_SECONDS):
            again = timedelta(seconds=jittered(PAUSES_SECONDS[attempt - 1]))
        which = (self._ledger.project_id, self._id, due["run_id"], due["version"], attempt)
        how = (answer.duration_ms, answer.status, answer.error, again)
        await fetch(self._ledger.pool, _RECORD, *which, *how)
