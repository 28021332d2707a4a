"""The duty that submits the runs of due schedules; any number of processes may do it."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from runfold.ledger import Ledger, names, schedules
from runfold.ledger.errors import InvalidValue, LedgerError, PayloadTooLarge
from runfold.workers.duties.duty import RETRY_SECONDS, Duty, Interruption, jittered
from runfold.workers.handlers import Handler

MOST_SECONDS: Final = 5.0
"""How long a new schedule may go unseen."""
LEAST_SECONDS: Final = 0.05
_NEWER: Final = (
    "a newer release or a change by hand keeps it; to replace it, set RUNFOLD_RELEASE to the time"
    " of this release"
)
_OTHER_KIND: Final = (
    "a person made it for another kind, and the handler's runs are not submitted: make it again"
    " under another name, and remove it"
)


class Scheduler(Duty):
    """Declares the schedules of its handlers, then submits what is due until cancelled.

    Of the schedules that handlers declare it submits only those of its own handlers: one whose
    handler is gone from the code makes no runs that nobody takes.
    """

    def __init__(
        self,
        ledger: Ledger,
        handlers: Iterable[Handler[..., Any]] = (),
        *,
        release: datetime | None = None,
    ) -> None:
        """Start nothing yet.

        `release`: when this code was made; None means RUNFOLD_RELEASE, or else the time at which
        each handler's file was last changed.
        """
        super().__init__(project_id=ledger.project_id)
        self.ledger = ledger
        self._handlers = [each for each in handlers if each.cron is not None]
        self._kinds = [each.kind for each in self._handlers]
        self._release = release
        self._declared = False
        self._orphans: set[str] = set()
        self._pause = MOST_SECONDS
        self._interruption = Interruption(
            self, names.SCHEDULER_INTERRUPTED, names.SCHEDULER_RESUMES
        )

    async def tick(self) -> None:
        """Submit what is due now."""
        self._pause = jittered(MOST_SECONDS)
        try:
            await self._declare()
            due, now = await schedules.due(self.ledger.project, self._kinds)
            submitted = [await self._submit(schedule, now) for schedule in due]
            wait = await schedules.until_next(self.ledger.project, self._kinds)
            await self._warn_of_orphans()
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
        """Submit one run; return whether it was accepted, so that a refusal delays no other."""
        try:
            await schedules.submit_due(self.ledger.project, schedule, now)
        except (InvalidValue, PayloadTooLarge) as error:
            return self._refuse(schedule, error)
        return True

    def _refuse(self, schedule: schedules.Schedule, error: LedgerError) -> bool:
        self.log.error(names.SCHEDULE_REFUSED, name=schedule.name, reason=str(error))
        return False

    async def _declare(self) -> None:
        if self._declared:
            return
        for each in self._handlers:
            assert each.cron is not None
            release = self._release or self.ledger.settings.release or _changed_at(each)
            schedule = await schedules.declare(
                self.ledger.project,
                each.kind,
                cron=each.cron,
                timezone=each.timezone,
                release=release,
            )
            asked = (each.kind, each.cron, each.timezone)
            if schedule and (schedule.kind, schedule.cron, schedule.timezone) != asked:
                self.log.warning(
                    names.SCHEDULE_KEPT,
                    name=schedule.name,
                    cron=schedule.cron,
                    declared=each.cron,
                    remedy=_NEWER if schedule.kind == each.kind else _OTHER_KIND,
                )
        self._declared = True

    async def _warn_of_orphans(self) -> None:
        orphans = await schedules.orphans(self.ledger.project, self._kinds)
        for schedule in orphans:
            if schedule.name not in self._orphans:
                self.log.warning(
                    names.SCHEDULE_ORPHANED,
                    name=schedule.name,
                    kind=schedule.kind,
                    remedy="no running worker has the handler that declared it: start one, or"
                    " `runfold schedules remove`",
                )
        self._orphans = {schedule.name for schedule in orphans}


def _changed_at(handler: Handler[..., Any]) -> datetime:
    """Return when the handler's file was last changed; now, if it has none."""
    try:
        changed = os.stat(inspect.unwrap(handler.function).__code__.co_filename).st_mtime
    except (OSError, AttributeError):
        return datetime.now(UTC)
    return datetime.fromtimestamp(changed, UTC)
