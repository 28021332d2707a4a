"""Replay: the calls of earlier attempts, answered in the order in which the handler makes them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from runfold.ledger.events import (
    ApprovalGranted,
    ApprovalLapsed,
    ApprovalRequested,
    ApprovalSigned,
    Event,
    LeaseAcquired,
    LeaseReleased,
    StepCompleted,
    StepFailed,
    ToolCompleted,
    ToolFailed,
    ToolRequested,
)
from runfold.ledger.lifecycle import DEADLINE_PASSED, HISTORY_MISMATCH
from runfold.workers.errors import HistoryMismatch, OtherVersion

CallKind = Literal["step", "tool", "approval"]
_REQUEUED: Final = frozenset({"run.retried", "lease.expired", "lease.released"})
_BEGIN: Final = (StepCompleted, StepFailed, ToolRequested, ApprovalRequested)
_ANSWERS: Final = (ToolCompleted, ToolFailed, ApprovalGranted, ApprovalLapsed)
_RESULTS: Final = (StepCompleted, ToolCompleted, ApprovalGranted, ApprovalLapsed)
"""The answers that no later attempt asks for again."""


@dataclass(slots=True)
class EarlierCall:
    """A call of an earlier attempt: the event that asked and the one that answered.

    For a step both are the same.
    """

    call: CallKind
    name: str
    beside: bool
    asked: Event
    answer: Event | None
    signed: list[ApprovalSigned] = field(default_factory=list)
    """The yes of each person but the last, where several must approve."""
    went_on: bool = False
    """The handler itself asked for something after the answer, so it had taken note of it."""

    @property
    def is_open(self) -> bool:
        """Whether a new attempt asks again: no answer, or a failure that nothing followed."""
        return self.answer is None or (
            self.has_failed
            and not self.went_on
            and getattr(self.answer, "error_code", None) != DEADLINE_PASSED
        )

    @property
    def has_failed(self) -> bool:
        """Whether the answer is an error."""
        return isinstance(self.answer, StepFailed | ToolFailed)

    def __str__(self) -> str:
        """Name the call for people."""
        return f"{self.call} {self.name!r}"


class Replay:
    """The recorded calls of a run that the handler has not asked for yet.

    Calls in the handler's own task must come in the recorded order. Calls in other tasks may come
    in any order, and are found by their names. Which of the two a call is may change while a run is
    open: `asyncio.wait_for` makes a task before Python 3.12, and none since. A failure is forgotten
    when the next attempt began before the handler itself had asked for anything more.
    """

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.was_lost = False
        """The attempt before this one ended because its worker died."""
        self.version: str | None = None
        """The version of the handler that made the first call; None if it declared none."""
        self.mismatches = 0
        """How often in a row the run was given back because its handler does not fit it."""
        self.given_back = 0
        """How often it was given back at once, as by a worker that ends, since its last result."""
        self._own: list[EarlierCall] = []
        self._beside: dict[tuple[CallKind, str], EarlierCall] = {}
        self._asked: EarlierCall | None = None
        for event in events:
            self._read(event)
        if self._own and self._own[-1].answer is None:
            self._own.pop()
        self._own.reverse()

    @property
    def is_replaying(self) -> bool:
        """Whether the handler is still where an earlier attempt has been."""
        return bool(self._own)

    @property
    def next_call(self) -> CallKind | None:
        """What the handler itself asked for next; None where nothing more is recorded."""
        return self._own[-1].call if self._own else None

    def take(self, call: CallKind, name: str, *, beside: bool) -> EarlierCall | None:
        """Return what is recorded of this call, None if it is new; raise HistoryMismatch.

        A call is also found where a task made it that does not now, or the other way round.
        """
        if self._own and (self._own[-1].call, self._own[-1].name) == (call, name):
            return self._own.pop()
        if (call, name) in self._beside:
            return self._beside.pop((call, name))
        if self._own and not beside:
            raise HistoryMismatch(str(self._own[-1]), f"{call} {name!r}")
        return None

    def finish(self) -> None:
        """Raise HistoryMismatch if something is recorded that the handler never asked for."""
        if self._own:
            raise HistoryMismatch(str(self._own[-1]), "its end")

    def check_version(self, own: str | None) -> None:
        """Raise OtherVersion if the run was begun by another version than a process has."""
        if self.version is not None and self.version != own:
            raise OtherVersion(self.version, own)

    def _read(self, event: Event) -> None:
        if isinstance(event, _BEGIN) and event.handler_version is not None:
            self.version = event.handler_version
        self._count(event)
        if (call := _earlier_call(event)) is not None:
            if not self._is_given_up(call):
                self._add(call)
        elif isinstance(event, ApprovalSigned) and self._asked is not None:
            self._asked.signed.append(event)
        elif isinstance(event, _ANSWERS) and self._asked is not None:
            self._asked.answer = event
        elif event.type in _REQUEUED:
            # While it was given back, no worker held it that could have died of it.
            self.was_lost = event.type == "lease.expired" or (
                self.was_lost and event.type == "lease.released"
            )
            if self._own and self._own[-1].is_open:
                self._own.pop()
            self._beside = {key: call for key, call in self._beside.items() if not call.is_open}

    def _count(self, event: Event) -> None:
        """Count how often the run was given back, and why."""
        if isinstance(event, LeaseReleased) and event.error_code == HISTORY_MISMATCH:
            self.mismatches += 1
        elif not isinstance(event, LeaseAcquired):
            self.mismatches = 0
        if isinstance(event, _RESULTS):
            self.given_back = 0
        elif isinstance(event, LeaseReleased) and _is_at_once(event):
            self.given_back += 1

    def _is_given_up(self, call: EarlierCall) -> bool:
        """Whether the event records that a step was given up; if so, it answers the step."""
        begun = self._beside.get((call.call, call.name)) if call.beside else self._last
        if call.call != "step" or begun is None or str(begun) != str(call):
            return False
        begun.answer = call.answer
        return True

    def _add(self, call: EarlierCall) -> None:
        self._asked = call if call.answer is None else self._asked
        if call.beside:
            self._beside[call.call, call.name] = call
            return
        for earlier in (*self._own[-1:], *self._beside.values()):
            earlier.went_on = earlier.went_on or earlier.answer is not None
        self._own.append(call)

    @property
    def _last(self) -> EarlierCall | None:
        return self._own[-1] if self._own else None


NOTHING: Final = Replay()
"""The replay of a run that nobody has worked on. It can be shared, because nothing changes it."""


def _is_at_once(event: LeaseReleased) -> bool:
    at = event.recorded_at
    return event.error_code is None and at is not None and event.available_at <= at


def _earlier_call(event: Event) -> EarlierCall | None:
    facts: Any = event
    match event:
        case StepCompleted() | StepFailed():
            return EarlierCall("step", facts.name, bool(facts.beside), event, event)
        case ToolRequested():
            return EarlierCall("tool", facts.name or "", bool(facts.beside), event, None)
        case ApprovalRequested():
            return EarlierCall("approval", facts.name or "", bool(facts.beside), event, None)
        case _:
            return None
