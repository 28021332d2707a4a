"""The heart of a worker: beats for every lease from a thread that no handler can hold up."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import asyncpg

from runfold.ledger import Lease, Ledger, log, names
from runfold.ledger.errors import ConfigurationError
from runfold.ledger.operations.columns import MAX_BATCH
from runfold.ledger.operations.heartbeat import HeartbeatRow, beat, refuse
from runfold.ledger.postgres.connections import connect
from runfold.workers.errors import Stop
from runfold.workers.leases.deadline import RETRY_SECONDS
from runfold.workers.leases.outage import Outage, cause_of
from runfold.workers.leases.room import Room
from runfold.workers.shared_limits import SharedLimits

SAFE_PART: Final = 0.9
"""The part of a lease's time after which work must end: the rest is for ending it."""
TRY_PART: Final = 0.3
"""The part of a lease's time that connecting or a beat may take. Not the interval: the first beat
over a new connection is the slowest, and where none passes in time, none ever would."""
LOOKS_IN_A_LEASE: Final = 40
LOOK_SECONDS: Final = 0.25
"""The longest time between looks at the limits of the process, which a handler may lower."""
TRIES_IN_A_BEAT: Final = 5
STOP_SECONDS: Final = 2.0
NO_ROOM: Final = "53"
"""The class of SQLSTATE of a server or login that has no connection left."""


@dataclass(slots=True)
class Held:
    """A lease that is beaten for; times are of the monotonic clock, from before the request."""

    lease: Lease
    since: float
    stopped: bool = False
    cancelled_at: float | None = None
    """When a heartbeat's answer said that somebody asked to cancel the run."""


class Heart:
    """Beats for its leases until they are removed; the last part of a worker to stop.

    One statement is one beat for all leases. A beat that fails is tried again and loses nothing; a
    beat that is refused has lost the lease. When none went through for nine tenths of the lease's
    time, the work is told to stop.
    """

    def __init__(
        self,
        ledger: Ledger,
        worker_id: str,
        ttl: float,
        every: float,
        *,
        tell: Callable[[Lease, Stop], None],
        ready: Callable[[], None],
    ) -> None:
        """Start nothing yet; a URL must be known.

        `tell` is called when an attempt has to end, `ready` when beats can be sent; both in the
        loop of `start`.
        """
        if ledger.url is None:
            raise ConfigurationError(
                "a worker needs a ledger that knows its URL: open it with Ledger.open"
            )
        self._ledger, self._url, self._worker_id = ledger, ledger.url, worker_id
        self._ttl, self._every = ttl, every
        self._tell, self._ready = tell, ready
        self.can_beat = False
        """Whether the heart has its connection; without it no lease should be taken."""
        self.limits = SharedLimits()
        self._held: dict[tuple[UUID, int], Held] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._heart_loop: asyncio.AbstractEventLoop | None = None
        self._is_over = threading.Event()
        self._connection: asyncpg.Connection[Any] | None = None
        self._outage = Outage()
        self._room = Room(ledger.pool, ttl * TRY_PART, self.beat_soon)

    async def start(self) -> None:
        """Begin to beat; return when the connection is open or cannot be had at once."""
        self._worker_loop = asyncio.get_running_loop()
        self._tried = asyncio.Event()
        running = self._worker_loop.create_future()
        self._thread = threading.Thread(
            target=self._run_thread, args=(running,), name="runfold-heart", daemon=True
        )
        self._thread.start()
        await running
        await self._tried.wait()

    async def stop(self) -> None:
        """Beat no more; returns when the thread has ended."""
        self._is_over.set()
        if self._thread is not None and self._thread.is_alive():
            self._call_soon(lambda: self._end.set())  # noqa: PLW0108  it may not be made yet
            await asyncio.to_thread(self._thread.join, min(self._every, STOP_SECONDS))

    def add(self, leases: Iterable[Lease], since: float) -> None:
        """Beat for leases; `since` is the monotonic time before they were claimed."""
        with self._lock:
            for lease in leases:
                self._held[lease.run_id, lease.token] = Held(lease, since)

    def remove(self, leases: Iterable[Lease]) -> list[Held]:
        """Stop beating for leases before their last write; return what `restore` needs."""
        with self._lock:
            held = [self._held.pop((lease.run_id, lease.token), None) for lease in leases]
        return [removed for removed in held if removed is not None]

    def restore(self, removed: Iterable[Held]) -> None:
        """Beat again for leases whose last write may not have closed them."""
        with self._lock:
            for held in removed:
                self._held[held.lease.run_id, held.lease.token] = held

    def beat_soon(self) -> None:
        """Beat now, for all leases."""
        self._call_soon(self._now.set)

    def _call_soon(self, act: Callable[[], object]) -> None:
        """Call this in the heart's loop; if the loop has died, when it runs again."""
        if self._heart_loop is not None:
            with suppress(RuntimeError):
                self._heart_loop.call_soon_threadsafe(act)

    # -- in the thread

    def _run_thread(self, running: asyncio.Future[None]) -> None:
        """Run the heart's loop until it is told to end, whatever handlers do to the process."""
        while not (self._is_over.is_set() or self._worker_loop.is_closed()):
            try:
                asyncio.run(self._main(running))
            except BaseException as error:  # such as RecursionError in the loop itself
                self.can_beat = False
                self.limits.restore()
                self._log.error(names.HEARTBEAT_FAILED, reason=repr(error), then="it begins again")
                self._is_over.wait(LOOK_SECONDS)
            else:
                return

    async def _main(self, running: asyncio.Future[None]) -> None:
        self._heart_loop = asyncio.get_running_loop()
        self._end, self._now = asyncio.Event(), asyncio.Event()
        self._inform(_set, running)
        try:
            await self._until_over()
        finally:
            self._disconnect()  # the next loop, if this one has died, cannot use its connection

    async def _until_over(self) -> None:
        tasks = [asyncio.create_task(_repeated(loop)) for loop in (self._watch, self._beat)]
        try:
            if not self._is_over.is_set():  # since before `_end` was made
                await self._end.wait()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self) -> None:
        """Stop what was not beaten for in time, whether or not a beat is under way."""
        while True:
            for held in self._before(time.monotonic() - self._ttl * SAFE_PART):
                if not held.stopped:
                    held.stopped = True
                    self._report(held, Stop.DOUBT, names.LEASE_IN_DOUBT)
            self.limits.restore()
            await asyncio.sleep(min(self._ttl / LOOKS_IN_A_LEASE, LOOK_SECONDS))

    async def _beat(self) -> None:
        """Beat in time; after a beat that failed, sooner and over a new connection."""
        at_once = False
        while True:
            pause = self._every
            try:
                # What was claimed just now can wait for the next beat: most runs are over by then.
                await self._beat_for_all(young=0 if at_once else self._every / 2)
            except Exception as error:  # whatever it is, the next beat must be tried
                self._disconnect()
                pause = self._every / TRIES_IN_A_BEAT
                if cause_of(error).startswith(NO_ROOM):
                    self._inform(self._room.make)
                if self._outage.is_news(error):
                    self._log.warning(
                        names.HEARTBEAT_FAILED,
                        reason=str(error) or type(error).__name__,
                        then=_remedy(error),
                    )
            else:
                if (seconds := self._outage.end()) is not None:
                    self._log.warning(names.BEATS_AGAIN, after_seconds=round(seconds, 1))
            self._inform(self._tried.set)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._now.wait()
            at_once = self._now.is_set()
            self._now.clear()

    async def _connect(self) -> None:
        if self._connection is None or self._connection.is_closed():
            async with asyncio.timeout(self._ttl * TRY_PART):
                settings = self._ledger.settings
                self._connection = await connect(
                    self._url,
                    "runfold heart",
                    prepared=settings.prepared_statements,
                    deadline=settings.statement_seconds,
                )
            self._connection.add_termination_listener(lambda _: self._now.set())
        if not self.can_beat:
            self.can_beat = True
            self._inform(self._ready)

    async def _beat_for_all(self, *, young: float) -> None:
        due = [held for held in self._before(time.monotonic() - young) if self._should_beat(held)]
        await self._connect()  # also with nothing to beat for: no lease is taken without it
        for first in range(0, len(due), MAX_BATCH):
            async with asyncio.timeout(self._ttl * TRY_PART):
                await self._beat_for(due[first : first + MAX_BATCH])

    async def _beat_for(self, due: Sequence[Held]) -> None:
        assert self._connection is not None
        sent = time.monotonic()
        beaten = await beat(self._connection, self._ledger.project_id, self._rows(due))
        # A lease that was removed meanwhile has ended on record: it is missing too, but not lost.
        missing = [held for held in due if held.lease.run_id not in beaten and self._holds(held)]
        for held in due:
            if (accepted := beaten.get(held.lease.run_id)) is not None:
                held.since = sent
                if accepted.cancel_requested and held.cancelled_at is None:
                    held.cancelled_at = sent
                    self._report(held, Stop.CANCEL)
        await self._lose(missing)

    def _should_beat(self, held: Held) -> bool:
        """Whether to beat for a lease: not where a frozen worker has not obeyed a cancel.

        The worker should have ended the run by now. Without beats the lease lapses, and a reaper
        ends it.
        """
        limit = self._ledger.settings.cancel_seconds + self._every
        return held.cancelled_at is None or time.monotonic() - held.cancelled_at < limit

    def _rows(self, leases: Sequence[Held]) -> list[HeartbeatRow]:
        ttl = timedelta(seconds=self._ttl)
        return [
            HeartbeatRow(held.lease.run_id, held.lease.token, ttl, held.lease.worker_id)
            for held in leases
        ]

    async def _lose(self, missing: Sequence[Held]) -> None:
        if missing:
            assert self._connection is not None
            late = self._rows(missing)
            await refuse(self._connection, self._ledger.project_id, self._worker_id, late)
        for held in missing:
            self.remove([held.lease])
            self._report(held, Stop.LOST, names.LEASE_LOST)

    def _before(self, since: float) -> list[Held]:
        with self._lock:
            return [held for held in self._held.values() if held.since < since]

    def _holds(self, held: Held) -> bool:
        with self._lock:
            return (held.lease.run_id, held.lease.token) in self._held

    def _report(self, held: Held, why: Stop, event: str | None = None) -> None:
        if event is not None:
            self._log.warning(event, run_id=str(held.lease.run_id), token=held.lease.token)
        self._inform(self._tell, held.lease, why)

    def _inform(self, hear: Callable[..., object], *facts: object) -> None:
        with suppress(RuntimeError):  # the worker's loop has closed
            self._worker_loop.call_soon_threadsafe(hear, *facts)

    def _disconnect(self) -> None:
        self.can_beat = False
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    @property
    def _log(self) -> Any:
        return log.logger(project_id=self._ledger.project_id, worker_id=self._worker_id)


def _set(running: asyncio.Future[None]) -> None:
    if not running.done():
        running.set_result(None)


async def _repeated(loop: Callable[[], Awaitable[None]]) -> None:
    """Keep a loop going, whatever it raises: without it every lease would lapse."""
    while True:
        with suppress(Exception):
            await loop()
        await asyncio.sleep(RETRY_SECONDS)


def _remedy(error: Exception) -> str:
    if cause_of(error).startswith(NO_ROOM):
        return (
            "nothing is claimed until the heart has a connection: a worker process takes "
            "RUNFOLD_POOL_SIZE and two more; raise the limit of the login or lower the setting"
        )
    return "nothing is claimed until a beat goes through"
