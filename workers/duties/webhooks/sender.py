"""The duty that sends webhooks: a task for each, so that a dead endpoint delays no other."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from runfold.ledger import Ledger, log, names
from runfold.ledger.errors import DatabaseUnavailable, LedgerError
from runfold.ledger.postgres.connections import fetch
from runfold.workers.duties.duty import RETRY_SECONDS, Duty, Interruption
from runfold.workers.duties.webhooks.deliverer import DUTIES, Deliverer, Terms

LOOK_SECONDS: Final = 1.0
"""How often the sender looks for webhooks that were added, changed or paused."""
FORGET_SECONDS: Final = 60.0
"""How often deliveries that ended long ago are deleted, those of paused webhooks too."""
FORGOTTEN_AT_ONCE: Final = 100
"""How many deliveries of a webhook one call deletes; after so many, it is called again."""
_FORGET: Final = "SELECT ledger.forget_deliveries($1) AS forgotten"


class WebhookSender(Duty):
    """Delivers a project's events to its webhooks until cancelled; any number may do so."""

    def __init__(self, ledger: Ledger, terms: Terms) -> None:
        """Start nothing yet. The login needs runfold_projector and the right read."""
        super().__init__(project_id=ledger.project_id)
        self._ledger, self._terms = ledger, terms
        self._running: dict[tuple[Any, ...], asyncio.Task[None]] = {}
        self._forgot_at = float("-inf")
        self._has_begun = False
        """Whether the duties were read once: what is refused from then on may be granted again."""
        self._interruption = Interruption(self, names.WEBHOOKS_INTERRUPTED, names.WEBHOOKS_GO_ON)

    async def run(self) -> None:
        """Do the duty until cancelled; raise AccessDenied for a login that may not."""
        try:
            await super().run()
        finally:
            for task in self._running.values():
                task.cancel()
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def tick(self) -> None:
        """Start a task for each webhook that has none; end those of removed or changed ones."""
        try:
            duties = await self._duties()
            await self._forget()
        except (LedgerError, OSError) as error:
            is_away = isinstance(error, DatabaseUnavailable | OSError)
            if not (self._has_begun or is_away):
                raise
            self._interruption.begin(str(error))
            return
        self._has_begun = True
        self._interruption.end()
        wanted = {_facts(duty): duty for duty in duties}
        for facts in [facts for facts in self._running if facts not in wanted]:
            self._running.pop(facts).cancel()
        for facts, duty in wanted.items():
            if facts not in self._running or self._running[facts].done():
                self._running[facts] = asyncio.create_task(self._deliver(duty))

    def pause(self) -> float:
        """Return the seconds until the next look."""
        return LOOK_SECONDS

    async def once(self) -> None:
        """Deliver to every webhook what is new and due now, then raise the first fault."""
        await self._forget()
        deliverers = [Deliverer(self._ledger, duty, self._terms) for duty in await self._duties()]
        ended = await asyncio.gather(
            *(deliverer.once() for deliverer in deliverers), return_exceptions=True
        )
        for fault in ended:
            if fault is not None:
                raise fault

    async def _duties(self) -> Sequence[Mapping[str, Any]]:
        return await fetch(self._ledger.pool, DUTIES, self._ledger.project_id)

    async def _forget(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._forgot_at >= FORGET_SECONDS:
            self._forgot_at = now
            forgotten = FORGOTTEN_AT_ONCE
            while forgotten >= FORGOTTEN_AT_ONCE:
                [row] = await fetch(self._ledger.pool, _FORGET, self._ledger.project_id)
                forgotten = row["forgotten"]

    async def _deliver(self, duty: Mapping[str, Any]) -> None:
        """Deliver to one webhook; a fault is logged, and the next look begins again."""
        try:
            await Deliverer(self._ledger, duty, self._terms).run()
        except Exception as error:
            reasons = error.exceptions if isinstance(error, ExceptionGroup) else (error,)
            log.logger(project_id=self._ledger.project_id, webhook=duty["webhook_id"]).error(
                names.WEBHOOK_FAILED, reason="; ".join(map(str, reasons))
            )
            await asyncio.sleep(RETRY_SECONDS)


def _facts(duty: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the facts that a task was begun with, without the checkpoint, which moves."""
    events, kinds = tuple(duty["events"]), tuple(duty["kinds"])
    return (duty["webhook_id"], duty["url"], events, kinds, duty["secret"])
