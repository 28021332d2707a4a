"""A duty beside the runs: one loop, and one log line when it is interrupted or resumes."""

from __future__ import annotations

import asyncio
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, Final

from runfold.ledger import log, names
from runfold.ledger.payload import PayloadRules
from runfold.workers.failures import described, for_the_log

RETRY_SECONDS: Final = 1.0
"""The pause before a duty tries again what was refused or interrupted."""
RESTART_SECONDS: Final = 5.0
"""The pause before a duty that crashed begins again: a defect is not tried in a hurry."""
JITTER: Final = 0.1


class Duty(ABC):
    """Ticks until it is cancelled. Any number of processes may do the same duty.

    `sleep` takes seconds. `bound` is what every log line of the duty carries.
    """

    def __init__(
        self, *, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep, **bound: object
    ) -> None:
        self._sleep, self._bound = sleep, bound

    async def run(self) -> None:
        """Do the duty until cancelled."""
        while True:
            await self.tick()
            await self._sleep(self.pause())

    @abstractmethod
    async def tick(self) -> object:
        """Do what is due now."""

    @abstractmethod
    def pause(self) -> float:
        """Return the seconds until the next tick."""

    @property
    def log(self) -> Any:
        """The duty's logger."""
        return log.logger(**self._bound)


class Interruption:
    """Logs that a duty is interrupted and that it goes on: once each, however often it tries."""

    def __init__(
        self,
        duty: Duty,
        begins: str,
        ends: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`begins` and `ends` are the names of the two log events; `clock` counts seconds."""
        self._duty, self._begins, self._ends, self._clock = duty, begins, ends, clock
        self._since: float | None = None
        self._cause: object = None

    @property
    def is_open(self) -> bool:
        """Whether the duty is interrupted now."""
        return self._since is not None

    def begin(self, reason: str, *, since: float | None = None) -> None:
        """Log the reason, unless the duty is interrupted already. `since` is of the clock."""
        if not self.is_open:
            self._open(since)
            self._duty.log.warning(self._begins, reason=reason)

    def begin_error(self, event: str, reason: str) -> None:
        """Log an error that a person has to end, under its own name and each reason once."""
        if self._cause != (event, reason):
            self._open(None)
            self._cause = (event, reason)
            self._duty.log.error(event, reason=reason)

    def end(self, **facts: object) -> None:
        """Log that the duty goes on, and after how long, if it was interrupted."""
        if self._since is not None:
            after = round(self._clock() - self._since, 1)
            self._since, self._cause = None, None
            self._duty.log.warning(self._ends, after_seconds=after, **facts)

    def _open(self, since: float | None) -> None:
        if self._since is None:
            self._since = self._clock() if since is None else since


def jittered(seconds: float, share: float = JITTER) -> float:
    """Return a pause up to `share` shorter, so that processes that start together spread out."""
    return seconds * random.uniform(1 - share, 1)  # noqa: S311  a delay, not a secret


async def supervised(duty: Duty, logger: Any, rules: PayloadRules) -> None:
    """Run a duty until cancelled; log a crash with its place, and begin again soon."""
    while True:
        try:
            await duty.run()
        except Exception as error:  # a defect must not cost the worker its reaper or wake-ups
            facts = {
                "duty": type(duty).__name__,
                "reason": described(error, rules),
                "exception": for_the_log(error, rules),
                "again_in_seconds": RESTART_SECONDS,
            }
            logger.error(names.DUTY_CRASHED, **facts)  # noqa: TRY400  it would show secrets
        await asyncio.sleep(RESTART_SECONDS)
