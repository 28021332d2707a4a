"""The duty that asks for the runs that schedules are due for; any number of processes may do it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from runfold.ledger import Ledger, names, schedules
from runfold.ledger.errors import InvalidValue, LedgerError, PayloadTooLarge
from runfold.workers.duties.duty import RETRY_SECONDS, Duty, Interruption, jittered
from runfold.workers.handlers import Handler

MOST_SECONDS: Final = 5.0
"""How long a new schedule may go unseen."""
LEAST_SECONDS: Final = 0.05


class Scheduler(Duty):
    """Declares the handlers' schedules, then submits what is due until cancelled."""

    def __init__(self, ledger: Ledger, handlers: Iterable[Handler[..., Any]] = ()) -> None:
        super().__init__(project_id=ledger.project_id)
        self.ledger = ledger
        self._handlers = [one for one in handlers if one.cron is not None]
        self._declared = False
        self._pause = MOST_SECONDS
        self._interruption = Interruption(
            self, names.SCHEDULER_INTERRUPTED, names.SCHEDULER_RESUMES
        )

    async def tick(self) -> None:
        """Submit what is due now."""
        self._pause = jittered(MOST_SECONDS)
        try:
            await self._declare()
            due, now = await schedules.due(self.ledger.project)
            submitted = [await self._submit(schedule, now) for schedule in due]
            wait = await schedules.until_next(self.ledger.project)
        except LedgerError as error:
            self._interruption.begin(str(error))
            return
        self._interruption.end()
        if wait is not None:  # what was refused stays due
            least = LEAST_SECONDS if all(submitted) else RETRY_SECONDS
            self._pause = min(max(wait.total_seconds(), least), self._pause)

    def pause(self) -> float:
        """Return the seconds until the next schedule is due, or a new one may have come."""
        return self._pause

    async def _submit(self, schedule: schedules.Schedule, now: datetime) -> bool:
        """Whether the run was submitted; a schedule that is refused holds no other up."""
        try:
            await schedules.ask(self.ledger.project, schedule, now)
        except (InvalidValue, PayloadTooLarge) as error:
            return self._refuse(schedule, error)
        return True

    def _refuse(self, schedule: schedules.Schedule, error: LedgerError) -> bool:
        self.log.error(names.SCHEDULE_REFUSED, name=schedule.name, reason=str(error))
        return False

    async def _declare(self) -> None:
        if self._declared:
            return
        for one in self._handlers:
            assert one.cron is not None
            await self.ledger.schedule(one.kind, one.kind, cron=one.cron, timezone=one.timezone)
        self._declared = True
