"""The worker: keeps its slots full of leased runs, calls their handlers, loses nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Any, Final, Self
from uuid import UUID

from runfold.ledger import Lease, Ledger, default_worker_id, log, names
from runfold.ledger.errors import DatabaseRefused, DatabaseUnavailable, InvalidValue, LedgerError
from runfold.ledger.validation import check_int, check_list, check_seconds, check_trimmed
from runfold.workers import forked_child
from runfold.workers.duties.duty import Duty, jittered, supervised
from runfold.workers.duties.reaper import Reaper
from runfold.workers.duties.scheduler import Scheduler
from runfold.workers.duties.wakeup_listener import Wakeup
from runfold.workers.errors import Stop
from runfold.workers.handlers import Handlers, Source
from runfold.workers.leases.deadline import within
from runfold.workers.leases.outage import Outage
from runfold.workers.leases.strays import Strays
from runfold.workers.slots import Slots

CONCURRENCY: Final = 10
JITTER: Final = 0.25
LINGER_SECONDS: Final = 0.002
SENT_AFTER: Final = 2
"""Turns of the loop until a statement is on its way: uvloop writes when a turn ends."""
CLOSE_SECONDS: Final = 1.0
"""How long duties may take to end, and a last look for leases."""


class Worker:
    """Does the runs of the kinds it has handlers for: `await Worker(ledger, handlers).run()`.

    Or beside a block: `async with Worker(ledger, handlers): ...`.

    `concurrency` runs at a time; `grace`: seconds that runs may go on for after `stop`; `poll`:
    seconds between looks for work when nothing wakes it; `worker_id`: its own, no other process may
    have it; `reap`, `schedule`: host these duties too; `listen`: hear wake-ups. Raises
    InvalidValue.
    """

    def __init__(
        self,
        ledger: Ledger,
        handlers: Source,
        *,
        concurrency: int = CONCURRENCY,
        kinds: Sequence[str] | None = None,
        worker_id: str | None = None,
        grace: float | None = None,
        poll: float | None = None,
        reap: bool = True,
        schedule: bool = True,
        listen: bool | None = None,
    ) -> None:
        settings = ledger.settings
        self.ledger, self.handlers = ledger, Handlers(handlers)
        self.concurrency = check_int("concurrency", concurrency, least=1, most=10_000)
        self.kinds = _kinds(self.handlers, kinds)
        default_id = default_worker_id(ledger.project.speaker)
        self.worker_id = check_trimmed("worker_id", worker_id or default_id)
        self.grace = check_seconds("grace", settings.grace_seconds if grace is None else grace)
        self.poll = check_seconds(
            "poll", settings.poll_seconds if poll is None else poll, positive=True
        )
        self.left: list[UUID] = []
        """The runs that could not be given back before `run` ended: a reaper takes them up."""
        listens = settings.listen if listen is None else listen
        self._duties = self._hosted(reap=reap, schedule=schedule, listen=listens)
        self._slots = Slots(
            ledger,
            self.handlers,
            self.worker_id,
            count=self.concurrency,
            look=self.look,
            ended=self._check_who_cancelled,
        )
        self._strays = Strays(ledger, self.worker_id)
        self._outage = Outage()
        self._look = asyncio.Event()
        """Set when it may be worth to claim: there is work, a slot, or an end to it."""
        self._stopping, self._at_once = asyncio.Event(), asyncio.Event()
        self._task: asyncio.Task[Any] | None = None
        self._beside: asyncio.TaskGroup
        self._canary: asyncio.Task[Any] | None = None
        """A task that no other code knows: only a handler that cancels every task cancels it."""
        self._claiming: asyncio.Task[list[Lease]] | None = None

    async def run(self) -> None:
        """Work until `stop`; when this is cancelled, give everything back at once.

        A handler that cancels this too, or stops the loop, ends the worker as a crash does: nothing
        is given back, and every run it held is charged the attempt. What the database refuses is
        waited for, as an outage is: an operator may mend it.
        """
        self._task = asyncio.current_task()
        forked_child.guard(asyncio.get_running_loop())
        async with AsyncExitStack() as ending:  # each part ends, however often this is cancelled
            # The heart ends last: until then every lease is beaten for.
            ending.push_async_callback(self._slots.heart.stop)
            await self._slots.heart.start()
            self._canary = asyncio.create_task(asyncio.Event().wait())
            ending.push_async_callback(_end, [self._canary, *self._begin_duties()])
            ending.push_async_callback(self._give_back)
            try:
                await self._serve()
                await self._finish()
            except asyncio.CancelledError:
                self._check_who_cancelled()
                raise

    async def __aenter__(self) -> Self:
        """Run beside the block; an error that ends `run` ends the block, too."""
        self._beside = await asyncio.TaskGroup().__aenter__()
        self._beside.create_task(self.run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop, and wait for the work or the grace; if the block raised, for neither."""
        if not self.is_stopping:  # a second time it would wait for neither
            self.stop()
        try:
            await self._beside.__aexit__(kind, raised, trace)
        except BaseExceptionGroup as group:
            first = group.exceptions[0]
            if first is not raised:
                raise first from first.__cause__

    def stop(self) -> None:
        """Claim no more; `run` ends with the work or the grace, at a second call at once."""
        if self._stopping.is_set():
            self._at_once.set()
        self._stopping.set()
        self._slots.close()
        self._look.set()
        if self._claiming is not None:  # what a silent server may have leased is looked for later
            asyncio.get_running_loop().call_later(CLOSE_SECONDS, self._claiming.cancel)

    def abandon(self) -> None:
        """Write nothing more for the runs held, whose leases then lapse; `run` has to be cancelled.

        That is for a worker that something other than `stop` or its owner ends: the next worker
        must find that this one died under those runs.
        """
        if not self._slots.is_abandoned:
            self._stopping.set()
            runs = [str(run_id) for run_id, _ in self._slots.held]
            self._log.error(names.ENDED_BY_HANDLER, runs=runs)
            self._slots.stop(Stop.LOST)

    @property
    def is_stopping(self) -> bool:
        """Whether the worker was told to stop."""
        return self._stopping.is_set()

    def look(self) -> None:
        """Look for work now."""
        self._look.set()

    # -- claiming

    async def _serve(self) -> None:
        slots = self._slots
        while not self._stopping.is_set():
            if slots.lingers:
                await asyncio.sleep(LINGER_SECONDS)
            self._look.clear()
            room = slots.room
            count = await self._claim(room) if room else 0
            slots.may_claim_more = count == room
            if count and slots.may_claim_more and slots.room:
                continue  # the next is claimed while these begin
            slots.begin()
            with suppress(TimeoutError):
                async with asyncio.timeout(jittered(self.poll, JITTER)):
                    await self._look.wait()

    async def _claim(self, room: int) -> int:
        since = time.monotonic()
        self._claiming = claiming = asyncio.create_task(self._leased(room))
        try:
            for _ in range(SENT_AFTER):
                await asyncio.sleep(0)
            self._slots.begin()  # what was claimed before, while the server claims
            leases = await asyncio.shield(claiming)
        except (DatabaseUnavailable, DatabaseRefused) as error:
            self._strays.suspect()
            if self._outage.is_news(error):
                self._log.warning(names.CLAIM_FAILED, reason=str(error))
            return 0
        except asyncio.CancelledError:
            assert self._task is not None
            if claiming.cancelled() and not self._task.cancelling():  # by `stop`
                self._strays.suspect()
                return 0
            # What is claimed by now has to be given back.
            with suppress(LedgerError):
                self._slots.take(await claiming, since)
            raise
        self._outage.end()
        self._slots.take(leases, since)
        return len(leases)

    async def _leased(self, room: int) -> list[Lease]:
        await self._strays.give_back(self._slots.held)
        claim = self.ledger.claim(self.worker_id, limit=room, kinds=self.kinds)
        patience = self.ledger.settings.lease_ttl_seconds
        return await within(patience, claim, has_content=False)

    # -- ending

    async def _finish(self) -> None:
        """Wait until all is done, the grace is over or `stop` was called a second time."""
        runs = len(self._slots.held)
        self._log.info(names.WORKER_STOPPING, runs=runs, grace_seconds=self.grace)
        hurry = asyncio.create_task(self._at_once.wait())
        done = asyncio.create_task(self._slots.drain())
        both = {hurry, done}
        try:
            await asyncio.wait(both, timeout=self.grace, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()

    def _check_who_cancelled(self) -> None:
        """Abandon the runs if a handler cancelled `run`: then it cancelled the canary as well."""
        if self._stopping.is_set() or self._task is None or not self._task.cancelling():
            return
        assert self._canary is not None
        if self._slots.are_cancelled or self._canary.cancelling():
            self.abandon()

    async def _give_back(self) -> None:
        """Give back every run, also where a handler does not end, and leases no answer named."""
        if self._slots.is_abandoned:
            return
        self._stopping.set()
        try:
            self.left = await self._slots.give_back()
        except asyncio.CancelledError:  # once more: nobody waits for the handlers that clean up
            self.left = [run_id for run_id, _ in self._slots.held]
            raise
        finally:
            if self.left:
                self._log.error(names.RUNS_LEFT, runs=[str(run_id) for run_id in self.left])
        with suppress(LedgerError, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._strays.give_back(self._slots.held)

    def _begin_duties(self) -> list[asyncio.Task[None]]:
        rules = self.ledger.project.rules
        return [asyncio.create_task(supervised(duty, self._log, rules)) for duty in self._duties]

    def _hosted(self, *, reap: bool, schedule: bool, listen: bool) -> list[Duty]:
        duties: list[Duty] = [Reaper(self.ledger)] if reap else []
        if schedule:
            handlers = [self.handlers[kind] for kind in self.kinds]
            duties.append(Scheduler(self.ledger, handlers))
        return [*duties, Wakeup(self.ledger, self.look)] if listen else duties

    @property
    def _log(self) -> Any:
        return log.logger(project_id=self.ledger.project_id, worker_id=self.worker_id)


async def _end(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel tasks, and wait for their ends for a moment."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=CLOSE_SECONDS)


def _kinds(handlers: Handlers, kinds: Sequence[str] | None) -> list[str]:
    if kinds is None:
        return sorted(handlers)
    check_list("kinds", kinds, "kinds")
    for kind in kinds:
        if kind not in handlers:
            raise InvalidValue(
                "kinds",
                kind,
                f"has no handler here; those there are: {', '.join(sorted(handlers))}",
            )
    return sorted(set(kinds))
