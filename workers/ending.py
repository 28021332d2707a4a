"""The ending of an attempt, written once: an error of the database never replaces a success."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar

from runfold.ledger import State, names
from runfold.ledger.commands import closing_row
from runfold.ledger.errors import (
    DatabaseUnavailable,
    IllegalTransition,
    InvalidValue,
    LeaseLost,
    LedgerError,
    PayloadTooLarge,
)
from runfold.ledger.events import NoteAdded
from runfold.ledger.lifecycle import HANDLER_FAILED, OUTPUT_REFUSED
from runfold.ledger.operations.transition import Move
from runfold.ledger.run import Receipt, Run
from runfold.ledger.validation import check_reason, check_text
from runfold.workers.backoff import Backoff
from runfold.workers.failures import described, summary
from runfold.workers.journal.children import answer
from runfold.workers.journal.meter import Meter
from runfold.workers.journal.recorder import Recorder
from runfold.workers.leases.deadline import RETRY_SECONDS, judged, within
from runfold.workers.leases.heart import Held
from runfold.workers.leases.outage import Outage
from runfold.workers.outcomes import Cancel, Done, Ending, Fail, GiveBack, Retry
from runfold.workers.tasks import Tasks

T = TypeVar("T")
Closing: TypeAlias = Done | Fail | Retry | Cancel
_TO_BLAME: Final = (InvalidValue, PayloadTooLarge, IllegalTransition)


class EndingWriter:
    """Writes how one attempt ended; until then the heart keeps its lease.

    Most endings go with the next statement of the worker, and no task waits for them: this hears
    the answer itself, as a future would.
    """

    def __init__(
        self,
        recorder: Recorder,
        meter: Meter,
        backoff: Backoff,
        tasks: Tasks,
        written: Callable[[], None],
    ) -> None:
        self._recorder, self._meter, self._backoff = recorder, meter, backoff
        self._ledger, self._lease = recorder.ledger, recorder.lease
        self._writer, self._heart = recorder.writer, recorder.heart
        self._tasks = tasks
        self._outage = Outage()
        self._written: Callable[[], None] | None = written
        self._is_over = False

    def write(self, ending: Ending) -> None:
        """Write the ending once, waiting for a database that is away; log a final refusal.

        `written` is called when there is nothing more to write.
        """
        has_attempts = self._lease.attempt < self._lease.max_attempts
        if isinstance(ending, Fail | Retry):
            self._log_failure(ending, again=isinstance(ending, Retry) and has_attempts)
        match ending:
            case None:
                self._finish()
            case GiveBack():
                self._tasks.start(self._until_over(self._requeue(partial(self._release, ending))))
            case Retry() if has_attempts:
                self._tasks.start(self._until_over(self._requeue(partial(self._retry, ending))))
            case _:
                self._hand(ending)

    def drop(self) -> None:
        """Write nothing more, not even an ending that waits to be sent."""
        self._is_over = True

    # -- hearing the answer

    def done(self) -> bool:
        """Whether nothing is to be written any more."""
        return self._is_over

    def set_result(self, outcome: Receipt | LedgerError) -> None:
        """Receive the receipt of the recorded ending, or the error that refused it."""
        if isinstance(outcome, LedgerError):
            self.set_exception(outcome)
        elif self._lease.parent is not None:
            self._tasks.start(self._until_over(self._tell_parent()))
        else:
            self._over()

    def set_exception(self, error: BaseException) -> None:
        """Receive the failure of the statement."""
        self._tasks.start(self._until_over(self._close(error)))

    def cancel(self) -> bool:
        """Learn that the event loop is closing."""
        self._finish()
        return True

    # -- writing

    def _hand(self, ending: Closing) -> None:
        """Have the worker's next statement write the ending."""
        self._ending = ending
        try:
            self._move = self._move_of(ending)
        except LedgerError as error:
            self._log_refusal(error)
            self._finish()
        else:
            self._writer.hand(self._move, self)

    async def _until_over(self, work: Awaitable[None]) -> None:
        """Do the last work for the attempt; log a refusal."""
        try:
            await work
        except LedgerError as error:
            self._log_refusal(error)
        finally:
            self._finish()

    def _log_refusal(self, error: LedgerError) -> None:
        log = self._recorder.log
        tell = log.warning if isinstance(error, LeaseLost) else log.error
        tell(names.OUTCOME_REFUSED, reason=str(error))

    def _finish(self) -> None:
        """End the beats for the lease, too: nothing more is written."""
        self._heart.remove([self._lease])
        self._over()

    def _over(self) -> None:
        """Say, once, that nothing more is written."""
        self._is_over = True
        # Called once, then dropped: it refers to the attempt, which refers to this object.
        written, self._written = self._written, None
        if written is not None:
            written()

    def _log_failure(self, ending: Fail | Retry, *, again: bool) -> None:
        """Log why the attempt failed, and what comes next."""
        reason, redaction = summary(ending.detail), self._recorder.rules.redaction
        self._recorder.log.warning(
            names.ATTEMPT_FAILED,
            error_code=ending.error_code,
            reason=reason if redaction is None else redaction.text(reason, "error_detail"),
            max_attempts=self._lease.max_attempts,
            then="another attempt" if again else "the run has failed",
        )

    async def _close(self, error: BaseException | None) -> None:
        """Go on after an error until the ending, or a failure in its place, is on record."""
        is_last_resort = False
        while error is not None:
            if isinstance(error, LedgerError):
                error = judged(error)
            if isinstance(error, DatabaseUnavailable):
                if not await self._is_still_held(error):
                    break
            # Only content that the ledger refuses makes a run end otherwise than its handler did.
            elif isinstance(error, _TO_BLAME) and not is_last_resort:
                self._move, is_last_resort = self._last_resort(error), True
            else:
                raise error
            error = await self._error_of_move()
        await self._tell_parent()

    async def _error_of_move(self) -> LedgerError | None:
        try:
            await self._writer.move(self._move)
        except LedgerError as error:
            return error
        return None

    async def _tell_parent(self) -> None:
        if self._lease.parent is not None:
            with suppress(LedgerError):  # the reaper's sweep finds what is not answered here
                await answer(self._ledger, [self._lease.parent])

    async def _requeue(self, write: Callable[[], Awaitable[Run]]) -> None:
        spending = self._meter.empty_to_note()
        while True:
            removed: Sequence[Held] = ()
            try:
                if spending is not None:
                    await self._record_spending(spending)
                    spending = None
                removed = self._heart.remove([self._lease])
                run = await write()
            except DatabaseUnavailable as error:
                self._heart.restore(removed)
                if not await self._is_still_held(error):
                    break
            else:
                if run.is_terminal:  # somebody had asked to cancel it
                    await self._tell_parent()
                break

    async def _release(self, ending: GiveBack) -> Run:
        return await self._within(
            self._ledger.release(
                self._lease,
                delay=ending.delay,
                error_code=ending.error_code,
                error_detail=ending.reason,
            )
        )

    async def _retry(self, ending: Retry) -> Run:
        delay = self._backoff.delay(self._lease.attempt)
        after = delay if ending.after is None else ending.after
        retry = partial(self._ledger.retry, self._lease)
        try:
            return await self._within(
                retry(delay=after, error_code=ending.error_code, error_detail=ending.detail)
            )
        except (InvalidValue, PayloadTooLarge) as error:
            return await self._within(
                retry(
                    delay=delay,
                    error_code=HANDLER_FAILED,
                    error_detail=described(error, self._recorder.rules),
                )
            )

    async def _within(self, call: Awaitable[T]) -> T:
        return await within(self._ledger.settings.lease_ttl_seconds, call)

    async def _is_still_held(self, error: DatabaseUnavailable) -> bool:
        """Whether to repeat a write whose outcome is unknown; return when the database answers."""
        if self._outage.is_news(error):
            self._recorder.log.warning(names.OUTCOME_POSTPONED, reason=str(error))
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            try:
                run = await self._within(self._ledger.get(self._lease.run_id))
            except DatabaseUnavailable:
                continue
            return (run.token, run.worker_id) == (self._lease.token, self._lease.worker_id)

    def _move_of(self, ending: Closing) -> Move:
        cost, steps = self._meter.empty()
        try:
            match ending:
                case Done(output):
                    return self._move_to(State.COMPLETED, {"output": output}, cost, steps)
                case Cancel(reason):
                    content = {"reason": check_reason(reason)}
                    return self._move_to(State.CANCELLED, content, cost, steps)
                case Fail(code, detail) | Retry(error_code=code, detail=detail):
                    code, content = code or HANDLER_FAILED, {"error_detail": detail}
                    return self._move_to(State.FAILED, content, cost, steps, code)
        except (InvalidValue, PayloadTooLarge) as error:
            return self._failed(ending, error, cost, steps)

    def _move_to(
        self,
        state: State,
        content: Mapping[str, Any],
        cost: Decimal,
        steps: int,
        error_code: str | None = None,
    ) -> Move:
        rules, lease = self._ledger.project.rules, self._lease
        row = closing_row(
            lease, state, content, rules, error_code=error_code, cost=cost, steps=steps
        )
        return Move(lease, row)

    def _last_resort(self, error: LedgerError) -> Move:
        """Return the failure of a run whose ending cannot be recorded, with what it has cost."""
        row = self._move.row
        if isinstance(error, InvalidValue) and error.name.endswith("_delta"):
            return self._failed(self._ending, error, Decimal(0), 0)
        return self._failed(self._ending, error, Decimal(row.cost or 0), row.steps or 0)

    def _failed(self, ending: Closing, error: LedgerError, cost: Decimal, steps: int) -> Move:
        code = HANDLER_FAILED
        if isinstance(ending, Done) and not isinstance(error, IllegalTransition):
            code = OUTPUT_REFUSED
        elif isinstance(ending, Fail | Retry) and _is_code(ending.error_code):
            code = ending.error_code
        detail = {"error_detail": described(error, self._recorder.rules)}
        return self._move_to(State.FAILED, detail, cost, steps, code)

    async def _record_spending(self, spending: NoteAdded) -> None:
        key = f"{self._lease.run_id}:#spent:{self._lease.token}"
        with suppress(InvalidValue):  # beyond what the total of a run may be
            await self._within(self._ledger.append(self._lease, spending, key=key))


def _is_code(code: object) -> bool:
    try:
        check_text("error_code", code)
    except InvalidValue:
        return False
    return True
