"""The worker: keeps its slots full of leased runs, calls their handlers, loses nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final
from uuid import UUID

from runfold.ledger import Lease, Ledger, default_worker_id, log, names
from runfold.ledger.errors import DatabaseRefused, DatabaseUnavailable, InvalidValue, LedgerError
from runfold.ledger.validation import check_duration, check_int, check_text
from runfold.workers.attempt import Attempt
from runfold.workers.duties.duty import Duty, jittered, kept
from runfold.workers.duties.reaper import Reaper
from runfold.workers.duties.scheduler import Scheduler
from runfold.workers.duties.wakeup_listener import Wakeup
from runfold.workers.ending import GiveBack
from runfold.workers.errors import Stop
from runfold.workers.failures import failure
from runfold.workers.handlers import Handlers, Source
from runfold.workers.leases.deadline import within
from runfold.workers.leases.heart import Heart
from runfold.workers.leases.strays import Strays
from runfold.workers.leases.suspects import Gate
from runfold.workers.leases.writer import Writer
from runfold.workers.outcomes import Retry

CONCURRENCY: Final = 10
JITTER: Final = 0.25
LINGER_SECONDS: Final = 0.002
UNWIND_SECONDS: Final = 5.0
"""How long a handler that was stopped may clean up, once the grace is over."""
GIVE_BACK_SECONDS: Final = 3.0
"""How long giving back the runs of handlers that would not stop may take; else they lapse."""
CLOSE_SECONDS: Final = 1.0
"""How long duties may take to end."""


class Worker:
    """Does the runs of the kinds it has handlers for: `await Worker(ledger, handlers).run()`.

    `concurrency` runs at a time; `grace`: seconds that runs may go on for after `stop`; `poll`:
    seconds between looks for work when nothing wakes it; `worker_id`: its own, no other process may
    have it; `reap`, `schedule`: host these duties too;
    `listen`: hear wake-ups. Raises InvalidValue.
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
        self.worker_id = check_text("worker_id", worker_id or default_worker_id())
        self.grace = check_duration(
            "grace", settings.grace_seconds if grace is None else grace
        ).total_seconds()
        self.poll = check_duration(
            "poll", settings.poll_seconds if poll is None else poll, positive=True
        ).total_seconds()
        self._duties: list[Duty] = [Reaper(ledger)] if reap else []
        if schedule:
            self._duties.append(Scheduler(ledger, [self.handlers[kind] for kind in self.kinds]))
        if settings.listen if listen is None else listen:
            self._duties.append(Wakeup(ledger, self.look))
        self._heart = Heart(
            ledger,
            self.worker_id,
            settings.lease_ttl_seconds,
            settings.heartbeat_seconds,
            tell=self._tell,
            ready=self.look,
        )
        self._writer = Writer(ledger, self._heart)
        self._strays = Strays(ledger, self.worker_id)
        self._attempts: dict[tuple[UUID, int], Attempt] = {}
        """Every lease that this worker still has something to write for."""
        self._gate = Gate(lambda: sum(one.is_held for one in self._attempts.values()))
        self._tasks: set[asyncio.Task[None]] = set()
        self._free = self.concurrency
        self._look = asyncio.Event()
        """Set when it may be worth to claim: there is work, a slot, or an end to it."""
        self._hungry = True
        """The last claim got all it asked for, so a freed slot can be filled."""
        self._stopping, self._at_once = asyncio.Event(), asyncio.Event()
        self._task: asyncio.Task[Any] | None = None
        self._abandoned = False
        self.left: list[UUID] = []
        """The runs that could not be given back before `run` ended: a reaper takes them up."""

    async def run(self) -> None:
        """Work until `stop`; when this is cancelled, give everything back at once.

        A handler that cancels this too, or stops the loop, ends the worker as a crash does: nothing
        is given back, and every run it held is charged the attempt. Raises LedgerError when the
        database refuses the worker altogether.
        """
        self._task = asyncio.current_task()
        await self._heart.start()
        duties = [asyncio.create_task(kept(duty, self._log)) for duty in self._duties]
        try:
            await self._serve()
            await self._finish()
        except asyncio.CancelledError:
            self._look_who_cancelled()
            raise
        finally:
            if not self._abandoned:
                await self._give_back()
            for duty in duties:
                duty.cancel()
            await asyncio.wait(duties, timeout=CLOSE_SECONDS) if duties else None
            await self._heart.stop()  # last: until here every lease is beaten for

    def stop(self) -> None:
        """Claim no more; `run` ends with the work or the grace, at a second call at once."""
        if self._stopping.is_set():
            self._at_once.set()
        self._stopping.set()
        self._look.set()

    def abandon(self) -> None:
        """Write nothing more for the runs held, whose leases then lapse; `run` has to be cancelled.

        That is for a worker that something other than `stop` or its owner ends: the next worker
        must find that this one died under those runs.
        """
        if self._abandoned:
            return
        self._abandoned = True
        self._stopping.set()
        runs = [str(attempt.lease.run_id) for attempt in self._attempts.values()]
        self._log.error(names.ENDED_BY_HANDLER, runs=runs)
        for attempt in self._attempts.values():
            attempt.stop(Stop.LOST)

    @property
    def is_stopping(self) -> bool:
        """Whether the worker was told to stop."""
        return self._stopping.is_set()

    def look(self) -> None:
        """Look for work now."""
        self._look.set()

    # -- claiming

    async def _serve(self) -> None:
        while not self._stopping.is_set():
            if self._hungry and 0 < self._free < self.concurrency:
                await asyncio.sleep(
                    LINGER_SECONDS
                )  # slots that are freed together are filled together
            self._look.clear()
            wanted = self._free if self._heart.can_beat and not self._gate.is_closed else 0
            found = await self._claim(wanted) if wanted else 0
            self._hungry = found == wanted
            with suppress(TimeoutError):
                async with asyncio.timeout(jittered(self.poll, JITTER)):
                    await self._look.wait()

    async def _claim(self, wanted: int) -> int:
        since = time.monotonic()
        claiming = asyncio.create_task(self._leased(wanted))
        try:
            leases = await asyncio.shield(claiming)
        except (DatabaseUnavailable, DatabaseRefused) as error:
            self._strays.suspect()
            self._log.warning(names.CLAIM_FAILED, reason=str(error))
            return 0
        except asyncio.CancelledError:  # what is claimed by now has to be given back
            with suppress(LedgerError):
                self._start(await claiming, since)
            raise
        self._start(leases, since)
        return len(leases)

    async def _leased(self, wanted: int) -> list[Lease]:
        await self._strays.give_back(self._attempts.keys())
        claim = self.ledger.claim(self.worker_id, limit=wanted, kinds=self.kinds)
        return await within(self.ledger.settings.lease_ttl_seconds, claim)

    def _start(self, leases: Sequence[Lease], since: float) -> None:
        for lease in leases:
            attempt = Attempt(
                self.ledger,
                self.handlers[lease.kind],
                lease,
                self._writer,
                self._heart,
                gate=self._gate,
            )
            self._attempts[lease.run_id, lease.token] = attempt
            self._heart.take(lease, since)
            self._free -= 1
            task = asyncio.create_task(self._attempt(attempt))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            if self._stopping.is_set():
                attempt.stop(Stop.SHUTDOWN)

    async def _attempt(self, attempt: Attempt) -> None:
        try:
            ending = await attempt.work()
        except Exception as error:  # no handler's doing, and yet the run must not stay held
            self._log.exception(names.ATTEMPT_CRASHED, run_id=str(attempt.lease.run_id))
            ending = Retry(detail=failure(error, self.ledger.settings.payload_limit_bytes))
        finally:
            self._look_who_cancelled()
            attempt.is_working = False
            self._free += 1
            if self._hungry:
                self._look.set()
        # Whoever gave the run back for it has taken it out.
        if (
            not self._abandoned
            and self._attempts.get((attempt.lease.run_id, attempt.lease.token)) is attempt
        ):
            try:
                await attempt.write(ending)
            finally:
                self._attempts.pop((attempt.lease.run_id, attempt.lease.token), None)
                self._gate.look()
                self._look.set()  # a limit of its kind may have room now

    def _tell(self, lease: Lease, why: Stop) -> None:
        """Hear from the heart that an attempt has to end."""
        if (attempt := self._attempts.get((lease.run_id, lease.token))) is not None:
            attempt.stop(why)

    # -- ending

    async def _finish(self) -> None:
        """Wait until all is done, the grace is over or somebody is in a hurry."""
        self._log.info(names.WORKER_STOPPING, runs=len(self._attempts), grace_seconds=self.grace)
        hurry = asyncio.create_task(self._at_once.wait())
        done = asyncio.create_task(_all(self._tasks))
        await asyncio.wait({hurry, done}, timeout=self.grace, return_when=asyncio.FIRST_COMPLETED)
        for task in (hurry, done):
            task.cancel()

    def _look_who_cancelled(self) -> None:
        """Abandon all if attempts are cancelled as well as `run`, whose owner knows of none."""
        if self._stopping.is_set() or self._task is None or not self._task.cancelling():
            return
        if any(attempt.is_cancelled_from_outside for attempt in self._attempts.values()):
            self.abandon()

    async def _give_back(self) -> None:
        """Stop what still works and give its run back, also of handlers that do not end."""
        self._stopping.set()
        for attempt in self._attempts.values():
            attempt.stop(Stop.SHUTDOWN)
        with suppress(LedgerError, TimeoutError):
            async with asyncio.timeout(GIVE_BACK_SECONDS):
                await self._strays.give_back(self._attempts.keys())
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=UNWIND_SECONDS)
        stubborn = [attempt for attempt in self._attempts.values() if attempt.is_working]
        for attempt in stubborn:
            del self._attempts[attempt.lease.run_id, attempt.lease.token]
            self._log.warning(
                names.WOULD_NOT_STOP, run_id=str(attempt.lease.run_id), kind=attempt.lease.kind
            )
        givings = {asyncio.create_task(one.write(GiveBack())): one for one in stubborn}
        if givings:
            await asyncio.wait(givings, timeout=GIVE_BACK_SECONDS)
        late = [attempt for giving, attempt in givings.items() if not giving.done()]
        self._leave([*late, *self._attempts.values()])
        for task in (*givings, *self._tasks):
            task.cancel()

    def _leave(self, attempts: Sequence[Attempt]) -> None:
        """Leave to a reaper what could not be given back in time."""
        self.left = [attempt.lease.run_id for attempt in attempts]
        if self.left:
            self._log.error(names.RUNS_LEFT, runs=[str(run_id) for run_id in self.left])

    @property
    def _log(self) -> Any:
        return log.logger(project_id=self.ledger.project_id, worker_id=self.worker_id)


async def _all(tasks: set[asyncio.Task[None]]) -> None:
    while tasks:
        await asyncio.wait(set(tasks))


def _kinds(handlers: Handlers, wanted: Sequence[str] | None) -> list[str]:
    if wanted is None:
        return sorted(handlers)
    if isinstance(wanted, str):
        raise InvalidValue("kinds", wanted, "must be a list of kinds")
    for kind in wanted:
        if kind not in handlers:
            raise InvalidValue(
                "kinds",
                kind,
                f"has no handler here; those there are: {', '.join(sorted(handlers))}",
            )
    return sorted(set(wanted))
