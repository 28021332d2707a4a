"""One attempt of one run: the handler is called, and what came of it is written."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, to_json

from runfold.ledger import Lease, Ledger, State, Transition, names
from runfold.ledger.errors import (
    DatabaseUnavailable,
    IllegalTransition,
    InvalidValue,
    LeaseLost,
    LedgerError,
    PayloadTooLarge,
)
from runfold.ledger.lifecycle import HANDLER_FAILED, HISTORY_MISMATCH, INPUT_REFUSED, OUTPUT_REFUSED
from runfold.ledger.operations.transition import Move
from runfold.ledger.payload import Unreadable
from runfold.ledger.validation import check_text
from runfold.workers.blocking import BlockingContext
from runfold.workers.context import Context
from runfold.workers.errors import (
    Asleep,
    HistoryMismatch,
    Parked,
    Refused,
    StepError,
    Stop,
    Stopped,
)
from runfold.workers.handlers import Handler
from runfold.workers.journal.children import answer
from runfold.workers.journal.journal import Journal
from runfold.workers.journal.json_values import as_declared
from runfold.workers.journal.threads import in_thread
from runfold.workers.leases.deadline import AGAIN_SECONDS, within
from runfold.workers.leases.heart import Heart
from runfold.workers.leases.suspects import Gate
from runfold.workers.leases.writer import Writer
from runfold.workers.outcomes import Cancel, Fail, Retry, failure, plain, said, summary

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Done:
    """The handler returned this; JSON by now."""

    output: Any


@dataclass(frozen=True, slots=True)
class GiveBack:
    """The run is pending again, after a delay in seconds; no attempt is charged."""

    delay: float = 0.0


Ending = Done | Fail | Retry | Cancel | GiveBack | None
"""What is to be written in the end; None: nothing, because the run is parked or lost."""


class Attempt:
    """Calls the handler of one leased run; can be stopped from outside, and always ends."""

    def __init__(
        self,
        ledger: Ledger,
        handler: Handler[..., Any],
        lease: Lease,
        writer: Writer,
        heart: Heart,
        *,
        gate: Gate,
    ) -> None:
        self.lease, self.handler = lease, handler
        self._ledger, self._writer, self._heart, self._gate = ledger, writer, heart, gate
        self._limit = ledger.settings.payload_limit_bytes
        self._journal = Journal(ledger, lease, writer, heart)
        self._task: asyncio.Task[Any] | None = None
        self._interruptible = False
        self._was_cancelled = False
        self.is_working = True
        """The handler has not come to its end."""

    async def work(self) -> Ending:
        """Call the handler and return its ending; raise only what is meant for the whole worker."""
        self._task = asyncio.current_task()
        try:
            given = self._input()
        except Exception as error:  # a validator may raise anything
            return Fail(INPUT_REFUSED, self._plain(error))
        try:
            await self._journal.remember()
            if self._gate.is_closed:
                return GiveBack(AGAIN_SECONDS)
            ending = await self._returned(
                await (self._alone(given) if self._is_suspect() else self._called(given))
            )
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit too: a handler must not end its worker
            if isinstance(error, asyncio.CancelledError):
                await self._settle()
            ending = self._raised(error)
        finally:
            self._journal.close()
        return None if self._journal.stopped is Stop.LOST else ending

    def stop(self, why: Stop) -> None:
        """End the attempt: cancel an async handler where it waits, a thread at its next call."""
        if self._journal.stopped is None or why is Stop.LOST:
            self._journal.stopped = why
        if self._interruptible and self._task is not None:
            self._task.cancel()

    @property
    def is_cancelled_from_outside(self) -> bool:
        """Whether the handler was cancelled otherwise than by `stop`."""
        cancelled = self._task is not None and self._task.cancelling() > 0
        return self._journal.stopped is None and (cancelled or self._was_cancelled)

    async def write(self, ending: Ending) -> None:
        """Write the ending once, waiting for a database that is away; log a final refusal."""
        if isinstance(ending, Fail | Retry):
            self._report(ending)
        try:
            match ending:
                case None:
                    pass
                case GiveBack(delay):
                    await self._requeue(lambda: self._release(delay))
                case Retry() if self.lease.attempt < self.lease.max_attempts:
                    await self._requeue(lambda: self._retry(ending))
                case _:
                    await self._close(ending)
                    await self._tell_parent()
        except LedgerError as error:
            refused = isinstance(error, LeaseLost)
            (self._journal.log.warning if refused else self._journal.log.error)(
                names.OUTCOME_REFUSED, reason=str(error)
            )
        finally:
            self._heart.let_go(self.lease)

    def _report(self, ending: Fail | Retry) -> None:
        """Log why the attempt failed, and what comes next."""
        again = isinstance(ending, Retry) and self.lease.attempt < self.lease.max_attempts
        self._journal.log.warning(
            names.ATTEMPT_FAILED,
            error_code=ending.error_code,
            reason=summary(ending.detail),
            max_attempts=self.lease.max_attempts,
            then="another attempt" if again else "the run has failed",
        )

    # -- calling

    def _is_suspect(self) -> bool:
        """Whether this run may have killed its last worker, and has no attempt left to find out."""
        return self.lease.attempt == self.lease.max_attempts and self._journal.was_lost

    async def _alone(self, given: list[Any]) -> Any:
        self._interruptible = True  # while it waits

        async def work() -> Any:
            self._interruptible = False
            return await self._called(given)

        return await self._gate.alone(work)

    async def _called(self, given: list[Any]) -> Any:
        if self.lease.cancel_requested:
            self._journal.stopped = Stop.CANCEL
        if self._journal.stopped is not None:
            raise Stopped(self._journal.stopped)
        if self.handler.blocking:
            context = BlockingContext(self._journal)
            return await in_thread(f"runfold-{self.handler.kind}", self._entered, context, given)
        self._interruptible = True
        try:
            return await self.handler.function(Context(self._journal), *given)
        finally:
            self._interruptible = False

    def _entered(self, context: BlockingContext, given: list[Any]) -> Any:
        context.enter()
        return self.handler.function(context, *given)

    def _input(self) -> list[Any]:
        """Return the handler's input as it is declared; raise what the type's check raises."""
        handler, given = self.handler, self.lease.input
        if isinstance(given, Unreadable):
            raise InvalidValue("input", "of the run", str(given))
        if not handler.takes_input or (given is None and handler.has_default):
            return []
        try:
            return [handler.input.validate_python(given)]
        except ValidationError:  # a strict type takes dates, decimals and tuples from JSON only
            return [handler.input.validate_json(to_json(given))]

    async def _settle(self) -> None:
        """Settle a cancellation by `stop`, by the handler, or by a loop that ends the worker."""
        assert self._task is not None
        while self._task.cancelling():
            self._task.uncancel()
        self._was_cancelled = True
        await asyncio.sleep(0)  # a worker that is cancelled too says so now

    async def _returned(self, result: Any) -> Ending:
        if self._journal.ending is not None:  # the handler caught what it should have let pass
            raise self._journal.ending
        if isinstance(result, Fail | Retry | Cancel):
            return result
        try:
            await self._journal.finish()
        except InvalidValue as error:
            return Fail(HANDLER_FAILED, self._plain(error))
        adapter = self.handler.output
        try:
            return Done(as_declared(adapter, adapter.validate_python(result)))
        except (ValidationError, PydanticSerializationError, ValueError, RecursionError) as error:
            return Fail(OUTPUT_REFUSED, self._plain(error))

    def _raised(self, error: BaseException) -> Ending:  # noqa: PLR0911  one return for each way out
        match self._journal.ending or error:
            case Parked():
                return None
            case Asleep(seconds=seconds):
                return GiveBack(seconds)
            case Refused(cause=cause):
                return Retry(detail=failure(cause, self._limit))
            case HistoryMismatch() as mismatch:
                return Retry(error_code=HISTORY_MISMATCH, detail=self._plain(mismatch))
            case _ if self._journal.stopped is Stop.CANCEL:
                return Cancel("as requested")
            case _ if self._journal.stopped is not None:
                return GiveBack()
            case StepError(__cause__=BaseException() as cause):
                return Retry(detail=failure(cause, self._limit))
            case raised:
                return Retry(detail=failure(raised, self._limit))

    # -- writing

    async def _close(self, ending: Done | Fail | Retry | Cancel) -> None:
        move, is_last_resort = self._move(ending), False
        while True:
            try:
                await self._writer.close(move)
            except DatabaseUnavailable as error:
                if not await self._is_still_held(error):
                    break
            # Nothing else ends a run otherwise than its handler did: here it is to blame.
            except (InvalidValue, PayloadTooLarge, IllegalTransition) as error:
                if is_last_resort:
                    raise
                move, is_last_resort = self._last_resort(ending, move, error), True
            else:
                break

    async def _tell_parent(self) -> None:
        if self.lease.parent is not None:
            with suppress(LedgerError):  # the reaper's sweep finds what is not answered here
                await answer(self._ledger, [self.lease.parent])

    async def _requeue(self, write: Callable[[], Awaitable[object]]) -> None:
        spending = self._journal.spending()
        while True:
            since = None
            try:
                if spending is not None:
                    await self._journal.record_spending(spending)
                    spending = None
                since = self._heart.let_go(self.lease)
                await write()
            except DatabaseUnavailable as error:
                if since is not None:
                    self._heart.take(self.lease, since)
                if not await self._is_still_held(error):
                    break
            else:
                break

    async def _release(self, delay: float) -> None:
        await self._within(self._ledger.release(self.lease, delay=delay))

    async def _retry(self, ending: Retry) -> None:
        delay = self.handler.backoff.delay(self.lease.attempt)
        after = delay if ending.after is None else ending.after
        retry = partial(self._ledger.retry, self.lease)
        try:
            await self._within(
                retry(delay=after, error_code=ending.error_code, error_detail=ending.detail)
            )
        except (InvalidValue, PayloadTooLarge) as error:
            await self._within(
                retry(delay=delay, error_code=HANDLER_FAILED, error_detail=self._plain(error))
            )

    async def _within(self, call: Awaitable[T]) -> T:
        return await within(self._ledger.settings.lease_ttl_seconds, call)

    async def _is_still_held(self, error: DatabaseUnavailable) -> bool:
        """Whether to make a write of unknown outcome again; return when the database answers."""
        self._journal.log.warning(names.OUTCOME_POSTPONED, reason=str(error))
        while True:
            await asyncio.sleep(AGAIN_SECONDS)
            try:
                run = await self._within(self._ledger.get(self.lease.run_id))
            except DatabaseUnavailable:
                continue
            return (run.token, run.worker_id) == (self.lease.token, self.lease.worker_id)

    def _move(self, ending: Done | Fail | Retry | Cancel) -> Move:
        usd, steps = self._journal.meter.empty()
        facts: dict[str, Any] = {"cost_usd_delta": usd, "step_count_delta": steps}
        match ending:
            case Done(output):
                command = Transition(self.lease, State.COMPLETED, output=output, **facts)
            case Cancel(reason):
                command = Transition(self.lease, State.CANCELLED, reason=reason, **facts)
            case Fail(error_code, detail) | Retry(error_code=error_code, detail=detail):
                command = Transition(
                    self.lease,
                    State.FAILED,
                    error_code=error_code or HANDLER_FAILED,
                    error_detail=detail,
                    **facts,
                )
        try:
            return self._writer.checked(command)
        except (InvalidValue, PayloadTooLarge) as error:
            return self._failed(ending, error, facts)

    def _last_resort(self, ending: Ending, move: Move, error: LedgerError) -> Move:
        """Return the failure of a run whose ending cannot be recorded, with what it has cost."""
        row = move.row
        is_of_total = isinstance(error, InvalidValue) and error.name.endswith("_delta")
        facts = (
            {}
            if is_of_total
            else {"cost_usd_delta": Decimal(row.cost or 0), "step_count_delta": row.steps or 0}
        )
        return self._failed(ending, error, facts)

    def _failed(self, ending: Ending, error: LedgerError, facts: Mapping[str, Any]) -> Move:
        code = HANDLER_FAILED
        if isinstance(ending, Done) and not isinstance(error, IllegalTransition):
            code = OUTPUT_REFUSED
        elif isinstance(ending, Fail | Retry) and _is_code(ending.error_code):
            code = ending.error_code
        return self._writer.checked(
            Transition(
                self.lease, State.FAILED, error_code=code, error_detail=self._plain(error), **facts
            )
        )

    def _plain(self, error: BaseException) -> str:
        return plain(said(error), max(self._limit // 16, 8))


def _is_code(code: object) -> bool:
    try:
        check_text("error_code", code)
    except InvalidValue:
        return False
    return True
