"""The calls of one attempt: what earlier attempts recorded is replayed, what is new is recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import cached_property
from typing import Any, Final, NoReturn

from runfold.ledger.errors import InvalidValue, PayloadTooLarge
from runfold.ledger.events import Event, NoteAdded, StepCompleted, StepFailed
from runfold.ledger.lifecycle import HANDLER_FAILED
from runfold.workers.errors import HistoryMismatch, Unwind
from runfold.workers.journal.call import CURRENT, Call, Names, adapter_of
from runfold.workers.journal.meter import Meter
from runfold.workers.journal.recorder import Recorder
from runfold.workers.journal.replay import NOTHING, CallKind, EarlierCall, Replay

FIRST_TOKEN: Final = 2
"""The token of a run that was never leased before, and so has nothing recorded."""


class Journal:
    """Replays the calls that earlier attempts of a run recorded, and records this one's."""

    def __init__(self, recorder: Recorder, version: str | None) -> None:
        """Record nothing yet; `version`: of the handler, recorded with the run's first call."""
        self.recorder = recorder
        self._version, self._first_call = version, ""
        self.lease, self.ledger = recorder.lease, recorder.ledger
        self.meter = Meter()
        """What the handler spent outside of its calls."""
        self.has_result = False
        """This attempt has recorded the result of a step or tool."""
        self._notes = 0
        self._replay: Replay | None = NOTHING if self.lease.token == FIRST_TOKEN else None

    async def begin(
        self, call: CallKind, name: str, fn: Callable[..., Any] | None, *, beside: bool
    ) -> Call:
        """Return a call with what is recorded of it; raises HistoryMismatch, or InvalidValue."""
        self.recorder.check_open(own=not beside)
        if CURRENT.get() is not None:
            raise InvalidValue(
                call, name, "is asked for within another call: leave it to the handler itself"
            )
        adapter = adapter_of(fn)
        unique = self._names.next(name)
        replay = await self.replay()
        earlier = self._taken(replay, call, unique, beside=beside)
        called = Call(call, unique, f"{self.lease.run_id}:{unique}", beside, adapter, earlier)
        if called.is_answered and not called.fits:
            self.recorder.mismatch(f"a result of {earlier}", f"another type: {adapter!r}")
        return called

    async def record(self, step: Call) -> None:
        """Append a step's outcome."""
        usd, steps = self.spent(step)
        facts: dict[str, Any] = {
            "name": step.name,
            "cost_usd": usd or None,
            "beside": step.beside or None,
            "handler_version": self.version_with(step),
        }
        if step.error is None:
            try:
                await self._append(
                    step, StepCompleted(output=step.output, step_count=steps + 1, **facts)
                )
            except (InvalidValue, PayloadTooLarge) as error:
                step.fail(error, self.recorder.rules)
        self.has_result = self.has_result or step.error is None
        if step.error is not None:
            await self._append(step, _failed(step, step_count=steps or None, **facts))

    async def give_up(self, step: Call) -> None:
        """Append that the handler gave up a step whose beginning is on record."""
        failed = _failed(step, name=step.name, beside=step.beside or None)
        await self._append(step, failed, "given-up")

    async def given_up_again(self) -> NoReturn:
        """Wait for the handler to give a call up once more, as it did when this was recorded."""
        await asyncio.get_running_loop().create_future()
        raise AssertionError("nobody sets it")

    async def note(self, text: object) -> None:
        """Add a remark, unless an earlier attempt has been here."""
        self._notes += 1
        if not (await self.replay()).is_replaying:
            await self.recorder.append(
                NoteAdded(text=str(text)),
                key=f"{self.lease.run_id}:note:{self.lease.token}:{self._notes}",
            )

    def cost(self, usd: float | Decimal, steps: int) -> None:
        """Count what was spent towards the call that runs here, else towards the next event."""
        called = CURRENT.get()
        if called is not None:
            called.meter.add(usd, steps)
        elif self._replay is None or not self._replay.is_replaying:
            self.meter.add(usd, steps)

    def keep_spending(self, called: Call) -> None:
        """Take over the costs of a call that will not be recorded: they go with the next event."""
        self.meter.add(*called.meter.empty())

    def spent(self, called: Call) -> tuple[Decimal, int]:
        """Empty the meter of a call, and with a call of the handler's own that of the attempt.

        Raises what has ended the attempt: then the call is not recorded, and its costs are kept.
        """
        try:
            self.recorder.check_open(own=not called.beside)
        except Unwind:
            self.keep_spending(called)
            raise
        usd, steps = called.meter.empty()
        if called.beside:
            return usd, steps
        more_usd, more_steps = self.meter.empty()
        return usd + more_usd, steps + more_steps

    def version_with(self, called: Call) -> str | None:
        """Return the handler's version if it is to be recorded with this call: the run's first."""
        if self._replay is None or self._replay.version is not None:
            return None
        self._first_call = self._first_call or called.name
        return self._version if called.name == self._first_call else None

    @property
    def mismatches(self) -> int:
        """How often in a row the run was given back because its handler does not fit it."""
        return 0 if self._replay is None else self._replay.mismatches

    @property
    def given_back(self) -> int:
        """How often the run was given back at once since its last result."""
        return 0 if self._replay is None or self.has_result else self._replay.given_back

    def key(self, called: Call, *more: str) -> str:
        """Return the idempotency key of a write for a call, in this attempt."""
        return ":".join((called.key, str(self.lease.token), *more))

    async def next_is(self, call: CallKind) -> bool | None:
        """Whether the next call on record is of this kind; None when the handler makes new ones."""
        recorded = (await self.replay()).next_call
        return None if recorded is None else recorded == call

    async def replay(self) -> Replay:
        """Return what earlier attempts recorded; read once."""
        if self._replay is None:
            async with self._reading:
                if self._replay is None:
                    self._replay = Replay(await self.recorder.persist(self._history))
        return self._replay

    def finish(self) -> None:
        """Raise HistoryMismatch for a recorded call left out, InvalidValue for a tool left open."""
        if self.recorder.open_tool is not None:
            raise InvalidValue(
                "tool",
                self.recorder.open_tool,
                "is still waited for: await every call before the handler returns",
            )
        if self._replay is not None:
            self._replay.finish()

    @cached_property
    def _names(self) -> Names:
        return Names()

    @cached_property
    def _reading(self) -> asyncio.Lock:
        return asyncio.Lock()

    async def _history(self) -> Sequence[Event]:
        return await self.ledger.history(self.lease.run_id, heartbeats=False)

    async def _append(self, step: Call, event: Event, *more: str) -> None:
        await self.recorder.append(event, key=self.key(step, *more), own=not step.beside)

    def _taken(
        self, replay: Replay, call: CallKind, name: str, *, beside: bool
    ) -> EarlierCall | None:
        try:
            return replay.take(call, name, beside=beside)
        except HistoryMismatch as mismatch:
            self.recorder.ending = mismatch
            raise


def _failed(step: Call, **facts: Any) -> StepFailed:
    return StepFailed(error_code=HANDLER_FAILED, error_detail=step.error, **facts)
