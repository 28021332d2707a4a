"""What a worker does beside its runs: a duty that crashes is logged and begun again."""

from __future__ import annotations

import asyncio
import traceback
from typing import Any, Final, Protocol

from runfold.ledger import names

RESTART_SECONDS: Final = 5.0


class Duty(Protocol):
    """Something that runs until it is cancelled."""

    async def run(self) -> None:
        """Do the duty."""


async def kept(duty: Duty, logger: Any) -> None:
    """Run a duty until cancelled; log a crash with its place, and begin again soon."""
    while True:
        try:
            await duty.run()
        except Exception as error:  # a defect must not cost the worker its reaper or wake-ups
            where = traceback.format_exception(error, limit=-3)
            facts = {
                "duty": type(duty).__name__,
                "reason": repr(error),
                "where": where,
                "again_in_seconds": RESTART_SECONDS,
            }
            logger.error(names.DUTY_CRASHED, **facts)  # noqa: TRY400  the log is told where in any format
        await asyncio.sleep(RESTART_SECONDS)
