"""The duty that calls `Ledger.reap`: regularly, when something is due, and with care.

After an outage it waits until workers had time to beat.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final

from runfold.ledger import Ledger, Run, names
from runfold.ledger.errors import DatabaseRefused, DatabaseUnavailable, LedgerError
from runfold.ledger.operations.reap import Pulse, pulse
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.postgres.errors import READS_ONLY
from runfold.ledger.postgres.partitions import MAKE
from runfold.ledger.validation import check_int, check_seconds
from runfold.workers.duties.duty import Duty, Interruption, jittered
from runfold.workers.journal.children import sweep
from runfold.workers.leases.deadline import within

PARTITIONS_SECONDS: Final = 3_600.0
BEATS_IN_A_LEASE: Final = 4

DUE_SECONDS: Final = 30.0
"""The longest time between two pulses; each tells what is due within a minute."""
SPREAD_SECONDS: Final = 0.05
"""Reapers that wait for the same moment spread out over this time, so that one does the work."""


class Reaper(Duty):
    """Sweeps one project until cancelled; any number of reapers may, each is safe alone.

    Leases run out while nobody can beat. So, when it starts and after every outage, it waits
    `grace` from the first answer of the database before it reaps; and it probes the database
    several times a lease (the pulse), so that no outage long enough to cost a lease falls unseen
    between two sweeps. A database's clock that is set forward ends leases all at once, and one that
    is set back those that begin until the ledger's time goes on: it waits then as well.

    What the clock ends, such as an approval that nobody decided, ends on time: the pulse says when
    it is due next. Leases end with the regular sweeps alone.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        every: float | None = None,
        grace: float | None = None,
        limit: int = 1_000,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """Start nothing yet; raises InvalidValue.

        `every` None means RUNFOLD_REAPER_SECONDS, `grace` None means RUNFOLD_LEASE_TTL_SECONDS.
        """
        super().__init__(sleep=sleep, project_id=ledger.project_id)
        settings = ledger.settings
        self.ledger = ledger
        self.every = check_seconds(
            "every", settings.reaper_seconds if every is None else every, positive=True
        )
        self.grace = check_seconds("grace", settings.lease_ttl_seconds if grace is None else grace)
        self.limit = check_int("limit", limit, least=1, most=10_000)
        self.pulse = min(self.every, self.grace / BEATS_IN_A_LEASE) if self.grace else self.every
        self.look = min(self.pulse, settings.poll_seconds, DUE_SECONDS)
        self.patience = max(settings.lease_ttl_seconds, 1.0)
        self._clock = clock
        self._sweep_at: float | None = None
        """When to sweep next; None until the database has answered."""
        self._swept: datetime | None = None
        """When what was due by then had been ended, by the database's clock; None at first."""
        self._due_at: float | None = None
        self._clocks: tuple[datetime, float] | None = None
        """The database's clock at the last pulse, and this process's."""
        self._partitions_at = clock()
        self._interruption = Interruption(
            self, names.REAPER_INTERRUPTED, names.REAPER_RESUMES, clock
        )

    async def run(self) -> None:
        """Sweep until cancelled; wait for a database that is away."""
        self._sweep_at = None  # begun again, it cannot know what the database did meanwhile
        await super().run()

    async def tick(self) -> list[Run]:
        """Do what is due now, one bounded sweep at most; return the runs that it reaped."""
        try:
            answer = await self._ask()
            if self._sweep_at is not None and self._clock() >= self._sweep_at:
                return await self._sweep(answer)
            if answer.due is not None and answer.due <= answer.now:
                return await self._end_due(answer)
        except LedgerError as error:
            self._interrupt(str(error), self._clock())
        return []

    def pause(self) -> float:
        """Return how long to sleep before the next tick: 0 when a sweep is due."""
        if self._sweep_at is None:
            return jittered(self.pulse)
        now = self._clock()
        due = self.look if self._due_at is None else max(self._due_at - now, 0.0)
        return min(max(self._sweep_at - now, 0.0), self.look, due)

    async def _ask(self) -> Pulse:
        """Take the pulse of the database; note an outage, and when the next run is due."""
        asked_at = self._clock()
        answer = await within(
            self.patience, pulse(self.ledger.project, self._swept), has_content=False
        )
        if answer.read_only:  # it answers, and yet no worker can beat
            raise DatabaseUnavailable(None, READS_ONLY)
        await self._make_partitions()
        now = self._clock()
        if self.grace and now - asked_at > self.grace / 2:
            # A server that stood still answers late; its workers' beats are as late as this answer.
            self._interrupt(f"the database took {now - asked_at:.1f} s to answer", asked_at)
        if self.grace and abs(ahead := self._clock_step(answer.clock, now)) > self.grace / 2:
            way = "forward" if ahead > 0 else "back"
            self._interrupt(f"the database's clock was set {way} {abs(ahead):,.0f} s", now)
        if self._sweep_at is None:
            self._resume(now)
        self._due_at = None
        if answer.due is not None:
            due_in = (answer.due - answer.now).total_seconds()
            self._due_at = asked_at + due_in + jittered(SPREAD_SECONDS, 1)
        return answer

    def _clock_step(self, server_clock: datetime, now: float) -> float:
        """Return by how many seconds the database's clock was set forward; below 0, back."""
        before, self._clocks = self._clocks, (server_clock, now)
        if before is None:
            return 0.0
        gone = (server_clock - before[0]).total_seconds()
        return gone if gone < 0 else max(gone - (now - before[1]), 0.0)

    async def _sweep(self, answer: Pulse) -> list[Run]:
        runs = await within(self.patience, self.ledger.reap(limit=self.limit), has_content=False)
        await within(self.patience, sweep(self.ledger), has_content=False)
        if len(runs) < self.limit:
            self._swept, self._due_at = answer.now, None
            self._sweep_at = self._clock() + jittered(self.every)
        return runs

    async def _end_due(self, answer: Pulse) -> list[Run]:
        runs = await within(self.patience, self._ended(), has_content=False)
        if len(runs) < self.limit:
            self._swept, self._due_at = answer.now, None
        return runs

    async def _ended(self) -> list[Run]:
        try:
            return await self.ledger.reap(limit=self.limit, leases=False)
        except DatabaseRefused:  # logged with its reason; the regular sweeps try again
            return []

    async def _make_partitions(self) -> None:
        if self._clock() < self._partitions_at:
            return
        try:
            await fetch(self.ledger.pool, MAKE)
        except DatabaseUnavailable:
            raise
        except LedgerError as error:
            # Months are made ahead: reaping must not stop because one more cannot be made yet.
            self.log.warning(names.PARTITIONS_FAILED, reason=str(error))
        self._partitions_at = self._clock() + jittered(PARTITIONS_SECONDS)

    def _interrupt(self, reason: str, since: float) -> None:
        self._sweep_at = None
        self._interruption.begin(reason, since=since)

    def _resume(self, now: float) -> None:
        self._sweep_at = now + self.grace
        self._interruption.end(reaps_in_seconds=self.grace)
