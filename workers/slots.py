"""The slots of a worker: the runs that it holds, each with a task that calls its handler."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from itertools import takewhile
from typing import Any, Final
from uuid import UUID

from runfold.ledger import Lease, Ledger, log, names
from runfold.workers.attempt import Attempt
from runfold.workers.errors import Stop
from runfold.workers.failures import failure, for_the_log
from runfold.workers.handlers import Handlers
from runfold.workers.leases.ahead import PATIENCE_SECONDS, Pace
from runfold.workers.leases.heart import Heart
from runfold.workers.leases.suspects import Gate
from runfold.workers.leases.writer import Writer
from runfold.workers.outcomes import Ending, Retry
from runfold.workers.tasks import Tasks

UNWIND_SECONDS: Final = 5.0
"""How long a handler that was stopped may clean up, once the grace is over."""
GIVE_BACK_SECONDS: Final = 3.0
"""How long giving back the runs of handlers that would not stop may take; else they lapse."""


class Slots:
    """Does leased runs, as many at a time as there are slots, until they are given back.

    While attempts are short and there is a backlog, some more are leased than there are slots, so
    that neither the server nor the slots wait for the next claim. They begin in order as slots
    become free; those that do not begin soon are given back, and no attempt is charged.

    `look` is called when it may be worth to claim; `ended` when a handler has come to its end, and
    before anything is written for it.
    """

    def __init__(
        self,
        ledger: Ledger,
        handlers: Handlers,
        worker_id: str,
        *,
        count: int,
        look: Callable[[], None],
        ended: Callable[[], None],
    ) -> None:
        settings = ledger.settings
        self._ledger, self._handlers, self._worker_id = ledger, handlers, worker_id
        self._look, self._ended = look, ended
        self.free = self._count = count
        self.may_claim_more = True
        """The last claim got all it asked for, so a freed slot can be filled."""
        self.heart = Heart(
            ledger,
            worker_id,
            settings.lease_ttl_seconds,
            settings.heartbeat_seconds,
            tell=self._stop_attempt,
            ready=look,
        )
        self._writer = Writer(ledger, self.heart, lambda: self.free < self._count)
        self._attempts: dict[tuple[UUID, int], Attempt] = {}
        """Every attempt for which there is still something to write."""
        self._ahead: deque[Attempt] = deque()
        """The attempts without a slot yet, in the order of their claims."""
        self._pace = Pace(count)
        self._context = copy_context()
        """Runs ahead begin in this context, without what the last handler in the slot has set."""
        self._gate = Gate(lambda: sum(attempt.is_held for attempt in self._attempts.values()))
        self._tasks = Tasks()
        self._unwritten: set[Attempt] = set()
        """The attempts whose handlers have ended, and whose endings are still being written."""
        self._has_written = asyncio.Event()
        self._stop: Stop | None = None
        self._is_beginning = self._begins_soon = False

    @property
    def held(self) -> Collection[tuple[UUID, int]]:
        """The run and token of every lease held."""
        return self._attempts.keys()

    @property
    def room(self) -> int:
        """How many runs may be claimed now: none without a heart, or while a suspect works."""
        if not self.heart.can_beat or self._gate.is_closed:
            return 0
        ahead = self._pace.ahead() if self.may_claim_more else 0
        room = self.free + ahead - len(self._ahead)
        if self._ahead and room <= ahead // 2:
            return 0  # what is held lasts: a later claim gets more with one statement
        # Half at a time, so that one half begins while the other is claimed.
        return max(min(room, max(self._count, (self._count + ahead) // 2)), 0)

    @property
    def lingers(self) -> bool:
        """Whether slots freed together should be filled together, by a claim in a moment."""
        return self.may_claim_more and 0 < self.free < self._count and not self._ahead

    @property
    def is_abandoned(self) -> bool:
        """Whether nothing more is written for the runs."""
        return self._stop is Stop.LOST

    @property
    def are_cancelled(self) -> bool:
        """Whether handlers were cancelled by something else than this."""
        return any(attempt.is_cancelled_from_outside for attempt in self._attempts.values())

    def take(self, leases: Sequence[Lease], since: float) -> None:
        """Hold the runs until `begin`; `since` is the monotonic time before they were claimed."""
        self.heart.add(leases, since)
        self._ahead.extend([self._attempt(lease) for lease in leases])
        self._context = copy_context()
        if self._stop is not None:
            self.begin()
        elif len(self._ahead) > self.free:
            asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._give_up, self._ahead[-1])

    def begin(self) -> None:
        """Begin the runs that have a slot, and runs without one that are only to be given back."""
        if self._is_beginning:
            return
        self._is_beginning = True
        try:
            while self._ahead and (self.free > 0 or self._stop or self._gate.is_closed):
                self._start(self._ahead.popleft())
        finally:
            self._is_beginning = False

    async def drain(self) -> None:
        """Return when every run is done."""
        while self._tasks or self._unwritten:
            if self._tasks:
                await asyncio.wait(set(self._tasks))
            else:
                self._has_written.clear()
                await self._has_written.wait()

    def close(self) -> None:
        """Stop attempts that have not begun, and those to come: the worker was told to stop."""
        self._stop = self._stop or Stop.SHUTDOWN
        for attempt in self._attempts.values():
            if not attempt.was_called:  # ahead, or a suspect that waits for its turn
                attempt.stop(self._stop)
        self.begin()

    def stop(self, why: Stop) -> None:
        """Stop all attempts, and those that begin later; Stop.LOST drops their writes as well."""
        self._stop = why
        for attempt in self._attempts.values():
            attempt.stop(why)
            if self.is_abandoned:
                attempt.drop()
        self.begin()

    async def give_back(self) -> list[UUID]:
        """Stop all attempts and give their runs back; return those for which there was no time."""
        self.stop(Stop.SHUTDOWN)
        with suppress(TimeoutError):
            async with asyncio.timeout(UNWIND_SECONDS):
                await self.drain()
        stubborn = [attempt for attempt in self._attempts.values() if attempt.is_working]
        for attempt in stubborn:
            del self._attempts[attempt.lease.run_id, attempt.lease.token]
            run_id, kind = str(attempt.lease.run_id), attempt.lease.kind
            self._log.warning(names.WOULD_NOT_STOP, run_id=run_id, kind=kind)
            self._hand_over(attempt, attempt.of_shutdown)
        with suppress(TimeoutError):
            async with asyncio.timeout(GIVE_BACK_SECONDS):
                while self._unwritten.intersection(stubborn):
                    self._has_written.clear()
                    await self._has_written.wait()
        left = {*self._unwritten, *self._attempts.values()}
        for attempt in left:
            attempt.drop()
        for task in self._tasks:
            task.cancel()
        return [attempt.lease.run_id for attempt in left]

    def _begin_soon(self) -> None:
        """Begin runs from the loop: one attempt must not run within the end of another."""
        if not self._begins_soon:
            self._begins_soon = True
            asyncio.get_running_loop().call_soon(self._begin_now, context=self._context)

    def _begin_now(self) -> None:
        self._begins_soon = False
        self.begin()

    def _give_up(self, last: Attempt) -> None:
        """Give back the runs up to the last of a claim if it has not begun by now."""
        if last not in self._ahead:
            return
        self._pace.forget()
        late = list(takewhile(lambda attempt: attempt is not last, self._ahead))
        for attempt in (*late, last):
            self._ahead.popleft()
            attempt.stop(Stop.NO_SLOT)
            self._start(attempt)

    def _start(self, attempt: Attempt) -> None:
        self.free -= 1
        self._tasks.start(self._work(attempt))

    def _attempt(self, lease: Lease) -> Attempt:
        before = self._attempts.get((lease.run_id, lease.token))
        attempt = Attempt(
            self._ledger,
            self._handlers[lease.kind],
            lease,
            self._writer,
            self.heart,
            gate=self._gate,
            tasks=self._tasks,
        )
        self._attempts[lease.run_id, lease.token] = attempt
        if self._stop is not None:
            attempt.stop(self._stop)
        if before is not None:
            self._part_attempts(before, attempt)
        return attempt

    def _part_attempts(self, before: Attempt, attempt: Attempt) -> None:
        """Do neither of two attempts under leases with the same number.

        The ledger lost the first lease, by a fail-over or a restore, and cannot tell the writes of
        the two apart. Given back, the run gets a lease with a number of its own.
        """
        lease = attempt.lease
        self._log.warning(names.LEASE_LOST, run_id=str(lease.run_id), token=lease.token)
        before.stop(Stop.LOST)
        before.drop()
        attempt.stop(Stop.SHUTDOWN)

    def _stop_attempt(self, lease: Lease, why: Stop) -> None:
        """Stop the attempt under a lease; the heart calls this."""
        if (attempt := self._attempts.get((lease.run_id, lease.token))) is not None:
            attempt.stop(why)

    async def _work(self, attempt: Attempt) -> None:
        try:
            ending = await attempt.work()
        except Exception as error:  # not the handler's fault, but the run must not stay held
            rules = self._ledger.project.rules
            facts = {"run_id": str(attempt.lease.run_id), "exception": for_the_log(error, rules)}
            self._log.error(names.ATTEMPT_CRASHED, **facts)
            ending = Retry(detail=failure(error, rules))
        finally:
            self.heart.limits.restore()
            self._ended()
            attempt.is_working = False
            self.free += 1
            if attempt.was_called:
                self._pace.ended()
            if self._ahead:
                self._begin_soon()
            if self.may_claim_more:
                self._look()
        # The attempt may be gone already: an ending that did not wait for the handler removes it.
        lease = (attempt.lease.run_id, attempt.lease.token)
        if not self.is_abandoned and self._attempts.get(lease) is attempt:
            self._hand_over(attempt, ending)

    def _hand_over(self, attempt: Attempt, ending: Ending) -> None:
        self._unwritten.add(attempt)
        attempt.write(ending, partial(self._forget, attempt))

    def _forget(self, attempt: Attempt) -> None:
        """Forget an attempt for which there is nothing more to write."""
        self._unwritten.discard(attempt)
        lease = (attempt.lease.run_id, attempt.lease.token)
        if self._attempts.get(lease) is attempt:
            del self._attempts[lease]
        self._has_written.set()
        self._gate.look()
        self._look()  # a limit of its kind may have room now

    @property
    def _log(self) -> Any:
        return log.logger(project_id=self._ledger.project_id, worker_id=self._worker_id)
