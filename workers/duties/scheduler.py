"""The duty that asks for the runs that schedules are due for; any number of processes may do it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from typing import Any, Final

from runfold.ledger import Ledger, log, names, schedules
from runfold.ledger.errors import InvalidValue, LedgerError, PayloadTooLarge
from runfold.workers.handlers import Handler

MOST_SECONDS: Final = 5.0
"""How long a new schedule may go unseen."""
LEAST_SECONDS: Final = 0.05
REFUSED_SECONDS: Final = 1.0


class Scheduler:
    """Declares the handlers' schedules, then submits what is due until cancelled."""

    def __init__(self, ledger: Ledger, handlers: Iterable[Handler[..., Any]] = ()) -> None:
        self.ledger = ledger
        self._handlers = [one for one in handlers if one.cron is not None]
        self._declared = False
        self._failing = False

    async def run(self) -> None:
        """Submit until cancelled."""
        while True:
            wait = await self.tick()
            await asyncio.sleep(wait)

    async def tick(self) -> float:
        """Submit what is due now; gives the seconds until it is worth to look again."""
        try:
            await self._declare()
            found, now = await schedules.due(self.ledger.project)
            asked = [await self._ask(one, now) for one in found]
            wait = await schedules.until_next(self.ledger.project)
        except LedgerError as error:
            if not self._failing:
                self._log.warning(names.SCHEDULER_INTERRUPTED, reason=str(error))
            self._failing = True
            return MOST_SECONDS
        if self._failing:
            self._failing = False
            self._log.warning(names.SCHEDULER_RESUMES)
        most = MOST_SECONDS * random.uniform(0.8, 1)  # noqa: S311  a delay, not a secret
        least = LEAST_SECONDS if all(asked) else REFUSED_SECONDS  # what is refused stays due
        return most if wait is None else min(max(wait.total_seconds(), least), most)

    async def _ask(self, one: schedules.Schedule, now: Any) -> bool:
        try:
            await schedules.ask(self.ledger.project, one, now)
        except (
            InvalidValue,
            PayloadTooLarge,
        ) as error:  # one that makes no sense here must not hold up the others
            self._log.error(names.SCHEDULE_REFUSED, name=one.name, reason=str(error))
            return False
        return True

    async def _declare(self) -> None:
        if self._declared:
            return
        for one in self._handlers:
            assert one.cron is not None
            await self.ledger.schedule(one.kind, one.kind, cron=one.cron, timezone=one.timezone)
        self._declared = True

    @property
    def _log(self) -> Any:
        return log.logger(project_id=self.ledger.project_id)
