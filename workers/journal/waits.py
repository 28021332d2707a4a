"""What a handler waits for besides tools, people and children: a time, a signal."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any, Final

from runfold.ledger.errors import VersionConflict
from runfold.ledger.lifecycle import DEADLINE_PASSED
from runfold.ledger.operations.signal import kept_signal
from runfold.ledger.postgres.clock import ledger_now
from runfold.ledger.validation import check_seconds
from runfold.workers.errors import Asleep, WaitTimedOut
from runfold.workers.journal.call import Call
from runfold.workers.journal.journal import Journal
from runfold.workers.journal.tools import Tools

SLICE_SECONDS: Final = 0.25


class Waits:
    """The waits of one attempt; each gives the run back, so that waiting holds no slot."""

    def __init__(self, journal: Journal, tools: Tools) -> None:
        self._journal, self._tools, self._ledger = journal, tools, journal.ledger

    async def sleep(self, called: Call, duration: float | timedelta) -> None:
        """Record when the sleep began; hold the run for a short rest, else give it back."""
        journal = self._journal
        with journal.recorder.asking():
            seconds = check_seconds("seconds", duration)
        if called.earlier is None:
            called.output = {"seconds": seconds}
            await journal.record(called)
        elif not (isinstance(called.output, dict) and called.output.keys() == {"seconds"}):
            journal.recorder.mismatch(str(called.earlier), f"sleep {called.name!r}")
        elif not called.beside and (await journal.replay()).is_replaying:
            return  # what came after it is recorded, so it is over
        else:
            seconds = await self._left(called.earlier.asked.recorded_at, called.output["seconds"])
        if seconds > self._ledger.settings.longest_held_sleep and not called.beside:
            journal.recorder.ending = Asleep(seconds)
            raise journal.recorder.ending
        end = asyncio.get_running_loop().time() + seconds
        while (left := end - asyncio.get_running_loop().time()) > 0:
            journal.recorder.check_open()
            await asyncio.sleep(min(left, SLICE_SECONDS))

    async def _left(self, since: datetime | None, seconds: float) -> float:
        assert since is not None
        present = await self._journal.recorder.persist(lambda: ledger_now(self._ledger.pool))
        passed = present - since
        return max(seconds - passed.total_seconds(), 0.0)

    async def signal(self, called: Call, name: str, timeout: float | timedelta | None) -> Any:  # noqa: ASYNC109  the run's time
        """Return the value of the next signal: one that was kept, or the answer to a parked wait.

        Raises WaitTimedOut.
        """
        journal, run_id = self._journal, self._journal.lease.run_id
        while not called.is_answered:
            events = await journal.recorder.persist(lambda: self._ledger.history(run_id))
            if (kept := kept_signal(events, name)) is not None:
                await self._tools.request(called, {"signal": name})
                called.output = kept.value
                await self._tools.respond(called)
                break
            try:
                version = events[-1].version
                await self._tools.park_until_answered(
                    called, {"signal": name}, expected_version=version, wait=timeout
                )
            except VersionConflict:
                continue  # a signal may have come
        if called.error is not None and called.error["type"] == DEADLINE_PASSED:
            raise WaitTimedOut(name)
        return called.result()
