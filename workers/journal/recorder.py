"""The writes of one attempt: each lands once, whatever the database or a handler does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from runfold.ledger import Lease, Ledger, State, Transition, log, names
from runfold.ledger.errors import (
    AccessDenied,
    DatabaseUnavailable,
    InvalidValue,
    LeaseLost,
    LedgerError,
    PayloadTooLarge,
    RunNotFound,
)
from runfold.ledger.events import Event
from runfold.ledger.payload import PayloadRules
from runfold.ledger.postgres.connections import NewConnections
from runfold.ledger.run import Receipt
from runfold.workers.errors import HistoryMismatch, Refused, Stop, Stopped, Unwind
from runfold.workers.leases.deadline import RETRY_SECONDS, in_time, raise_judged, within
from runfold.workers.leases.outage import Outage

if TYPE_CHECKING:
    from runfold.workers.leases.heart import Heart
    from runfold.workers.leases.writer import Writer

R = TypeVar("R")
SETTLE_SECONDS: Final = 5.0
"""How long an attempt that has to end waits for the answer to a write."""


class Recorder:
    """Writes under one lease until the attempt has to end, and knows why it has to."""

    ending: Unwind | None = None
    """What has ended the attempt from within, whatever the handler makes of it."""
    stopped: Stop | None = None
    """Why the attempt has to end, as the worker sees it."""
    was_called = False
    """The handler has begun."""
    open_tool: str | None = None
    """The tool that the run waits for now, held."""
    _newest: Receipt | None = None
    """The receipt of the last write."""
    _connections: tuple[int, int] | None = None
    """The connections when the last write was last known to be there; None after an error."""

    def __init__(self, ledger: Ledger, lease: Lease, writer: Writer, heart: Heart) -> None:
        self.ledger, self.lease = ledger, lease
        self.writer, self.heart = writer, heart
        self.version = lease.token
        """The version of the run after the last write."""

    @property
    def rules(self) -> PayloadRules:
        """The rules for every payload of the project."""
        return self.ledger.project.rules

    @property
    def log(self) -> Any:
        """A structlog logger bound to the run, its attempt and its token."""
        lease = self.lease
        return log.logger(
            project_id=self.ledger.project_id,
            run_id=str(lease.run_id),
            kind=lease.kind,
            attempt_count=lease.attempt,
            token=lease.token,
            worker_id=lease.worker_id,
            trace_id=lease.run_id.hex,
        )

    async def append(self, event: Event, *, key: str, own: bool = False) -> None:
        """Append an event under the lease. Raises as `persist` does."""
        await self.persist(lambda: self.ledger.append(self.lease, event, key=key), own=own)

    async def move(
        self, state: State, *, name: str, own: bool, gives_way: bool = False, **facts: Any
    ) -> None:
        """Move the run along, into or out of waiting for a held tool. Raises as `persist` does."""

        async def write() -> Receipt:
            command = Transition(self.lease, state, name=name, **facts)
            receipt = await self.writer.move(self.writer.checked(command))
            # Noted here: the caller may be cancelled by now.
            self.open_tool = name if state is State.WAITING_TOOL else None
            return receipt

        await self.persist(write, own=own, gives_way=gives_way)

    async def park(self, command: Transition) -> None:
        """Make the move that gives the lease back for a wait. Raises as `persist` does."""
        await self.persist(lambda: self.writer.move(self.writer.checked(command)))

    async def persist(
        self, write: Callable[[], Awaitable[R]], *, own: bool = False, gives_way: bool = False
    ) -> R:
        """Make a keyed write, again while the database is away; it lands before the attempt ends.

        A handler that cancels the call meanwhile waits too: what may be on record cannot be given
        up, or the next attempt would go another way. It is cancelled when the write has landed:
        here if that `gives_way`, else where it waits next. `own`: the write belongs to a call of
        the handler itself. Raises Stopped, and what the ledger raises for content.
        """
        writing = asyncio.ensure_future(self._until_written(write, own=own))
        is_cancelled = False
        try:
            while True:
                try:
                    written = await asyncio.shield(writing)
                    break
                except asyncio.CancelledError:
                    if writing.cancelled():
                        raise
                    if self.stopped is not None:
                        await asyncio.wait({writing}, timeout=SETTLE_SECONDS)
                        writing.cancel()
                        raise
                    is_cancelled = True
        finally:
            if is_cancelled and not gives_way:
                _cancel_again()
        if is_cancelled and gives_way:
            raise asyncio.CancelledError
        return written

    def check_open(self, *, own: bool = False) -> None:
        """Raise what has ended the attempt, if anything has; a refused call ends it for good.

        What a handler returns that has caught this does not count: it goes on from a call that was
        not made.
        """
        if self.ending is not None:
            raise self.ending
        if self.stopped is not None:
            refused = Stopped(self.stopped)
            if own:
                self.ending = refused
            raise refused

    def close(self) -> None:
        """Refuse further records, as of tasks that the handler left behind."""
        self.ending = self.ending or Stopped("the handler has ended")

    @contextmanager
    def asking(self) -> Iterator[None]:
        """End the attempt when a call cannot be asked in this block: it could not be replayed."""
        try:
            yield
        except (InvalidValue, PayloadTooLarge) as error:
            self.ending = self.ending or Refused(error)
            raise

    def mismatch(self, recorded: str, asked: str) -> NoReturn:
        """End the attempt because the history has something else than the handler asks for."""
        self.ending = HistoryMismatch(recorded, asked)
        raise self.ending

    async def _until_written(self, write: Callable[[], Awaitable[R]], *, own: bool) -> R:
        outage = Outage()
        while True:
            self.check_open(own=own)
            try:
                await self._check_kept()
                written = await within(self._patience, write())
            except DatabaseUnavailable as error:
                self._connections = None
                if outage.is_news(error):
                    self.log.warning(names.WRITE_POSTPONED, reason=str(error))
                await asyncio.sleep(RETRY_SECONDS)
            except LeaseLost as error:
                self.stopped = Stop.LOST
                raise Stopped(str(error)) from error
            else:
                if isinstance(written, Receipt):
                    self.version, self._newest = written.version, written
                return written

    async def _check_kept(self) -> None:
        """Stop unless the last write is still there, if another connection may lead elsewhere.

        After a fail-over that lost a tail, the lease may be there and the last calls not. What
        followed them now could never be replayed.
        """
        now, newest = self._connected(), self._newest
        if now != self._connections and newest is not None and not await self._is_kept(newest):
            self.stopped = Stop.DOUBT
            self.log.warning(names.TAIL_LOST, version=newest.version)
            raise Stopped(str(Stop.DOUBT))
        self._connections = now

    async def _is_kept(self, receipt: Receipt) -> bool:
        reading = self.ledger.history(receipt.run_id, after=receipt.version - 1, limit=1)
        try:
            kept = await in_time(self._patience, reading)
        except (AccessDenied, RunNotFound):  # it is not held any more: the write says so
            return True
        except LedgerError as error:
            raise_judged(error, has_content=False)
        return [event.hash for event in kept] == [receipt.hash]

    def _connected(self) -> tuple[int, int]:
        """Return how many connections were ever opened, and how many the pool has: some may die."""
        return NewConnections.count, self.ledger.pool.get_size()

    @property
    def _patience(self) -> float:
        return self.ledger.settings.lease_ttl_seconds


def _cancel_again() -> None:
    """Cancel the current task once more, unless its cancellation was withdrawn meanwhile."""
    task = asyncio.current_task()
    assert task is not None

    def cancel() -> None:
        if task.cancelling():
            task.cancel()
            task.uncancel()  # it is the same cancellation, so it counts once

    asyncio.get_running_loop().call_soon(cancel)
