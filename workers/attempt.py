"""One attempt of one run: the handler is called, and what came of it is written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_json

from runfold.ledger import Lease, Ledger, names
from runfold.ledger.errors import DatabaseUnavailable, InvalidValue
from runfold.ledger.lifecycle import INPUT_REFUSED
from runfold.ledger.payload import Unreadable
from runfold.workers import judge
from runfold.workers.blocking import BlockingContext
from runfold.workers.context import Context
from runfold.workers.ending import EndingWriter
from runfold.workers.errors import (
    OtherInput,
    Stop,
    Stopped,
)
from runfold.workers.failures import described
from runfold.workers.handlers import Handler
from runfold.workers.journal.journal import Journal
from runfold.workers.journal.recorder import Recorder
from runfold.workers.journal.replay import Replay
from runfold.workers.journal.threads import in_thread
from runfold.workers.leases.deadline import RETRY_SECONDS
from runfold.workers.leases.heart import Heart
from runfold.workers.leases.suspects import Gate
from runfold.workers.leases.writer import Writer
from runfold.workers.outcomes import Cancel, Ending, Fail, GiveBack
from runfold.workers.tasks import Tasks


class Attempt:
    """Calls the handler of one leased run; can be stopped from outside, and always ends."""

    # Defaults of the class, because thousands of attempts a second change none of them.
    is_working = True
    """The handler has not come to its end."""
    is_held = True
    """There is something to write under the lease."""
    _task: asyncio.Task[Any] | None = None
    _interruptible = False
    _was_cancelled = False
    _was_lost = False
    """The attempt before this one ended because its worker died."""
    _overruling: asyncio.Future[None] | None = None
    """Done when the run was ended while its handler went on."""
    _ending: EndingWriter | None = None

    def __init__(
        self,
        ledger: Ledger,
        handler: Handler[..., Any],
        lease: Lease,
        writer: Writer,
        heart: Heart,
        *,
        gate: Gate,
        tasks: Tasks,
    ) -> None:
        self.lease, self.handler = lease, handler
        self._writer, self._tasks = writer, tasks
        self._recorder = Recorder(ledger, lease, writer, heart)
        self._gate = gate
        self._journal = Journal(self._recorder, handler.version)

    async def work(self) -> Ending:
        """Call the handler and return its ending; raise only what ends the whole worker."""
        self._task = asyncio.current_task()
        try:
            self._recorder.check_open()  # it may have been stopped before it had a slot
            ending = await self._attempted(await self._journal.replay())
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit too: a handler must not end its worker
            if isinstance(error, asyncio.CancelledError):
                await self._settle()
            ending = judge.raised(self._journal, self.handler, error)
        finally:
            self._recorder.close()
        return None if self._recorder.stopped is Stop.LOST else ending

    def stop(self, why: Stop) -> None:
        """End the attempt: cancel an async handler where it waits, a thread at its next call."""
        if self._recorder.stopped is None or why is Stop.LOST:
            self._recorder.stopped = why
        if self._interruptible and self._task is not None:
            self._task.cancel()
        if why is Stop.CANCEL:
            seconds = self._recorder.ledger.settings.cancel_seconds
            asyncio.get_running_loop().call_later(seconds, self._overrule, seconds)

    @property
    def was_called(self) -> bool:
        """Whether the handler has begun."""
        return self._recorder.was_called

    @property
    def is_cancelled_from_outside(self) -> bool:
        """Whether the handler was cancelled by anything but `stop`."""
        cancelled = self._task is not None and self._task.cancelling() > 0
        return self._recorder.stopped is None and (cancelled or self._was_cancelled)

    def write(self, ending: Ending, written: Callable[[], None]) -> None:
        """Write the ending once, waiting for a database that is away; log a final refusal.

        `written` is called when there is nothing more to write.
        """
        if self._overruling is not None:  # another ending than this one
            self._overruling.add_done_callback(lambda _: written())
        else:
            self._write(ending, written)

    @property
    def of_shutdown(self) -> Ending:
        """The ending of an attempt whose handler does not stop although its worker ends."""
        return judge.shut_down(self._journal)

    def drop(self) -> None:
        """Write nothing more, not even an ending that waits for its statement."""
        if self._ending is not None:
            self._ending.drop()

    def _write(self, ending: Ending, written: Callable[[], None]) -> None:
        self._ending = EndingWriter(
            self._recorder, self._journal.meter, self.handler.backoff, self._tasks, written
        )
        self._ending.write(ending)

    def _overrule(self, seconds: float) -> None:
        """Cancel the run while its handler works; what it records from now on is refused."""
        if not self.is_working or self._recorder.stopped is Stop.LOST:
            return
        self._recorder.log.warning(
            names.WOULD_NOT_STOP, then="its run is cancelled; it keeps its slot until it ends"
        )
        self._overruling = overruling = asyncio.get_running_loop().create_future()

        def written() -> None:
            self.is_held = False
            self._gate.look()
            overruling.set_result(None)

        self._write(Cancel(f"as requested; its handler did not stop within {seconds:g} s"), written)

    # -- calling

    async def _attempted(self, replay: Replay) -> Ending:
        replay.check_version(self.handler.version)
        if replay.was_lost:
            self._was_lost = True
        if self._gate.is_closed:
            return GiveBack(RETRY_SECONDS)
        try:
            arguments = self._arguments()
        except Exception as error:  # a validator may raise anything
            if replay.is_replaying:
                raise OtherInput(error) from error
            return Fail(INPUT_REFUSED, described(error, self._recorder.rules))
        is_suspect = self._was_lost and self._is_last
        if is_suspect or replay.given_back >= judge.GIVEN_BACK_FREELY:
            return judge.returned(self._journal, self.handler, await self._alone(arguments))
        return judge.returned(self._journal, self.handler, await self._called(arguments))

    @property
    def _is_last(self) -> bool:
        """Whether the run has no other attempt left."""
        return self.lease.attempt == self.lease.max_attempts

    async def _alone(self, arguments: list[Any]) -> Any:
        """Call the handler of a suspect: of a run that may have killed its workers."""
        self._interruptible = True  # while it waits

        async def work() -> Any:
            self._interruptible = False
            return await self._called(arguments)

        return await self._gate.alone(work)

    async def _called(self, arguments: list[Any]) -> Any:
        if self.lease.cancel_requested:
            self._recorder.stopped = Stop.CANCEL
        if self._recorder.stopped is None and (self._is_last or self._was_lost):
            await self._begin()
        if self._recorder.stopped is not None:
            raise Stopped(self._recorder.stopped)
        self._recorder.was_called = True
        if self.handler.blocking:
            context = BlockingContext(self._journal)
            return await in_thread(
                f"runfold-{self.handler.kind}", self._entered, context, arguments
            )
        self._interruptible = True
        try:
            return await self.handler.function(Context(self._journal), *arguments)
        finally:
            self._interruptible = False

    async def _begin(self) -> None:
        """Record that the handler is called: no other lapse may charge the attempt."""
        try:
            if not await self._writer.begin(self.lease):
                self._recorder.stopped = Stop.LOST
        except DatabaseUnavailable:
            self._recorder.stopped = Stop.DOUBT

    def _entered(self, context: BlockingContext, arguments: list[Any]) -> Any:
        context.enter()
        return self.handler.function(context, *arguments)

    def _arguments(self) -> list[Any]:
        """Return the input as the handler declares it; raise what the type's check raises."""
        handler, recorded = self.handler, self.lease.input
        if isinstance(recorded, Unreadable):
            raise InvalidValue("input", "of the run", str(recorded))
        if not handler.takes_input or (recorded is None and handler.has_default):
            return []
        try:
            return [handler.input.validate_python(recorded)]
        except ValidationError:  # a strict type takes dates, decimals and tuples from JSON only
            return [handler.input.validate_json(to_json(recorded))]

    async def _settle(self) -> None:
        """Settle a cancellation by `stop`, by the handler, or by a loop that ends the worker."""
        assert self._task is not None
        while self._task.cancelling():
            self._task.uncancel()
        self._was_cancelled = True
        await asyncio.sleep(0)  # if the worker is cancelled as well, that shows now
