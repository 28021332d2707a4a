"""The ending of an attempt, written once: whatever the database does, it replaces no success."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from decimal import Decimal
from functools import partial
from typing import Any, TypeVar

from runfold.ledger import State, Transition, names
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
from runfold.ledger.validation import check_text
from runfold.workers.backoff import Backoff
from runfold.workers.failures import described, summary
from runfold.workers.journal.children import answer
from runfold.workers.journal.meter import Meter
from runfold.workers.journal.recorder import Recorder
from runfold.workers.leases.deadline import AGAIN_SECONDS, within
from runfold.workers.outcomes import Cancel, Done, Ending, Fail, GiveBack, Retry

T = TypeVar("T")


class EndingWriter:
    """Writes how one attempt ended; until then its lease is beaten for."""

    def __init__(self, recorder: Recorder, meter: Meter, backoff: Backoff) -> None:
        self._recorder, self._meter, self._backoff = recorder, meter, backoff
        self._ledger, self._lease, self._limit = recorder.ledger, recorder.lease, recorder.limit
        self._writer, self._heart = recorder.writer, recorder.heart

    async def write(self, ending: Ending) -> None:
        """Write the ending once, waiting for a database that is away; log a final refusal."""
        has_attempts = self._lease.attempt < self._lease.max_attempts
        if isinstance(ending, Fail | Retry):
            self._report(ending, again=isinstance(ending, Retry) and has_attempts)
        try:
            match ending:
                case None:
                    pass
                case GiveBack():
                    await self._requeue(lambda: self._release(ending))
                case Retry() if has_attempts:
                    await self._requeue(lambda: self._retry(ending))
                case _:
                    await self._close(ending)
                    await self._tell_parent()
        except LedgerError as error:
            log = self._recorder.log
            tell = log.warning if isinstance(error, LeaseLost) else log.error
            tell(names.OUTCOME_REFUSED, reason=str(error))
        finally:
            self._heart.let_go(self._lease)

    def _report(self, ending: Fail | Retry, *, again: bool) -> None:
        """Log why the attempt failed, and what comes next."""
        self._recorder.log.warning(
            names.ATTEMPT_FAILED,
            error_code=ending.error_code,
            reason=summary(ending.detail),
            max_attempts=self._lease.max_attempts,
            then="another attempt" if again else "the run has failed",
        )

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
        if self._lease.parent is not None:
            with suppress(LedgerError):  # the reaper's sweep finds what is not answered here
                await answer(self._ledger, [self._lease.parent])

    async def _requeue(self, write: Callable[[], Awaitable[object]]) -> None:
        spending = self._meter.empty_to_note()
        while True:
            since = None
            try:
                if spending is not None:
                    await self._record_spending(spending)
                    spending = None
                since = self._heart.let_go(self._lease)
                await write()
            except DatabaseUnavailable as error:
                if since is not None:
                    self._heart.take(self._lease, since)
                if not await self._is_still_held(error):
                    break
            else:
                break

    async def _release(self, ending: GiveBack) -> None:
        await self._within(
            self._ledger.release(
                self._lease,
                delay=ending.delay,
                error_code=ending.error_code,
                error_detail=ending.reason,
            )
        )

    async def _retry(self, ending: Retry) -> None:
        delay = self._backoff.delay(self._lease.attempt)
        after = delay if ending.after is None else ending.after
        retry = partial(self._ledger.retry, self._lease)
        try:
            await self._within(
                retry(delay=after, error_code=ending.error_code, error_detail=ending.detail)
            )
        except (InvalidValue, PayloadTooLarge) as error:
            await self._within(
                retry(
                    delay=delay,
                    error_code=HANDLER_FAILED,
                    error_detail=described(error, self._limit),
                )
            )

    async def _within(self, call: Awaitable[T]) -> T:
        return await within(self._ledger.settings.lease_ttl_seconds, call)

    async def _is_still_held(self, error: DatabaseUnavailable) -> bool:
        """Whether to make a write of unknown outcome again; return when the database answers."""
        self._recorder.log.warning(names.OUTCOME_POSTPONED, reason=str(error))
        while True:
            await asyncio.sleep(AGAIN_SECONDS)
            try:
                run = await self._within(self._ledger.get(self._lease.run_id))
            except DatabaseUnavailable:
                continue
            return (run.token, run.worker_id) == (self._lease.token, self._lease.worker_id)

    def _move(self, ending: Done | Fail | Retry | Cancel) -> Move:
        usd, steps = self._meter.empty()
        facts: dict[str, Any] = {"cost_usd_delta": usd, "step_count_delta": steps}
        match ending:
            case Done(output):
                command = Transition(self._lease, State.COMPLETED, output=output, **facts)
            case Cancel(reason):
                command = Transition(self._lease, State.CANCELLED, reason=reason, **facts)
            case Fail(error_code, detail) | Retry(error_code=error_code, detail=detail):
                command = Transition(
                    self._lease,
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
                self._lease,
                State.FAILED,
                error_code=code,
                error_detail=described(error, self._limit),
                **facts,
            )
        )

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
