"""A run's recorded calls, recalled in the order in which the handler makes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from runfold.ledger.events import (
    ApprovalGranted,
    ApprovalRequested,
    Event,
    StepCompleted,
    StepFailed,
    ToolCompleted,
    ToolFailed,
    ToolRequested,
)
from runfold.ledger.lifecycle import DEADLINE_PASSED
from runfold.workers.errors import HistoryMismatch

CallKind = Literal["step", "tool", "approval"]
_REQUEUED: Final = frozenset({"run.retried", "lease.expired", "lease.released"})
_ANSWERS: Final = (ToolCompleted, ToolFailed, ApprovalGranted)


@dataclass(slots=True)
class Recorded:
    """A recorded call: the event that asked and the one that answered, the same for a step."""

    call: CallKind
    name: str
    beside: bool
    asked: Event
    answer: Event | None
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


class Recall:
    """The recorded calls of a run that the handler has not asked for yet.

    Calls of the handler's own task come in one order, and are held to it. Those of tasks beside it
    come in any, and go by their names. A failure is forgotten when the next attempt began before
    the handler itself had asked for anything more.
    """

    def __init__(self, events: Iterable[Event] = ()) -> None:
        own: list[Recorded] = []
        beside: dict[tuple[CallKind, str], Recorded] = {}
        asked: Recorded | None = None
        self.was_lost = False
        """The attempt before this one ended because its worker died."""
        for event in events:
            made = _recorded(event)
            if made is not None and _is_given_up(made, own, beside):
                continue
            if made is not None:
                asked = made if made.answer is None else asked
                if made.beside:
                    beside[made.call, made.name] = made
                else:
                    for earlier in (*own[-1:], *beside.values()):
                        earlier.went_on = earlier.went_on or earlier.answer is not None
                    own.append(made)
            elif isinstance(event, _ANSWERS) and asked is not None:
                asked.answer = event
            elif event.type in _REQUEUED:
                # Given back, it was under no worker that could have died of it.
                self.was_lost = event.type == "lease.expired" or (
                    self.was_lost and event.type == "lease.released"
                )
                if own and own[-1].is_open:
                    own.pop()
                beside = {key: one for key, one in beside.items() if not one.is_open}
        if own and own[-1].answer is None:
            own.pop()
        self._own, self._beside = own[::-1], beside

    @property
    def replaying(self) -> bool:
        """Whether the handler is where an earlier attempt has been."""
        return bool(self._own)

    def take(self, call: CallKind, name: str, *, beside: bool) -> Recorded | None:
        """Return what is recorded of this call, None if it is new; raise HistoryMismatch."""
        if beside:
            return self._beside.pop((call, name), None)
        if not self._own:
            return None
        if (self._own[-1].call, self._own[-1].name) != (call, name):
            raise HistoryMismatch(str(self._own[-1]), f"{call} {name!r}")
        return self._own.pop()

    def finish(self) -> None:
        """Raise HistoryMismatch if something is recorded that the handler never asked for."""
        if self._own:
            raise HistoryMismatch(str(self._own[-1]), "its end")


def _is_given_up(
    made: Recorded, own: Sequence[Recorded], beside: Mapping[tuple[CallKind, str], Recorded]
) -> bool:
    """Take a second event of a step as its answer: it was given up after its beginning."""
    begun = beside.get((made.call, made.name)) if made.beside else next(iter(own[-1:]), None)
    if made.call != "step" or begun is None or (begun.call, begun.name) != (made.call, made.name):
        return False
    begun.answer = made.answer
    return True


def _recorded(event: Event) -> Recorded | None:
    found: Any = event
    match event:
        case StepCompleted() | StepFailed():
            return Recorded("step", found.name, bool(found.beside), event, event)
        case ToolRequested():
            return Recorded("tool", found.name or "", bool(found.beside), event, None)
        case ApprovalRequested():
            return Recorded("approval", found.name or "", bool(found.beside), event, None)
        case _:
            return None
