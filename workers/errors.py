"""What a handler meets: errors it may catch, and endings that it must let pass."""

from __future__ import annotations

from enum import StrEnum
from typing import Final
from uuid import UUID

from runfold.ledger.errors import LedgerError

_CHANGED: Final = "the handler changed while the run was open"


class StepError(Exception):
    """A step's function raised; the error is recorded, and raised again in later attempts."""

    what = "step"

    def __init__(self, name: str, error_type: str, message: str) -> None:
        self.name, self.error_type, self.message = name, error_type, message
        super().__init__(f"{self.what} {name!r} failed: {error_type}: {message}")


class ToolError(StepError):
    """A tool's function raised, or its answer was an error."""

    what = "tool"


class WaitTimedOut(TimeoutError):
    """A wait ended without an answer; that is recorded, and raised again in later attempts."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"nobody answered {name!r} in time")


class ChildFailed(Exception):
    """A child run ended without completing."""

    def __init__(self, run_id: UUID, state: str, error_code: str | None) -> None:
        self.run_id, self.state, self.error_code = run_id, state, error_code
        super().__init__(
            f"child {run_id} ended as {state}" + (f" ({error_code})" if error_code else "")
        )


class SelfCancelled(Exception):
    """The function of a call raised a CancelledError itself: an error like any other."""


class WorkerEnded(LedgerError):
    """A handler ended its worker: it stopped the loop, cancelled every task or exited."""

    def __init__(self, cause: BaseException) -> None:
        self.cause = cause
        super().__init__(
            f"a handler ended its worker ({type(cause).__name__}: {cause}); the runs that it held "
            "are charged the attempt, as after a crash"
        )


class NeverBegan(LedgerError):
    """One of several processes kept ending before it had begun."""

    def __init__(self, part: str, tries: int, exit_code: int, reason: str) -> None:
        self.part, self.tries, self.part_exit_code, self.reason = part, tries, exit_code, reason
        super().__init__(
            f"{part} cannot start: it ended {tries} times before it had begun, at last with exit "
            f"code {exit_code}: {reason or 'no reason was given'}"
        )


class Unwind(BaseException):
    """Base of what ends an attempt through its handler; no `except Exception` catches it."""


class Parked(Unwind):
    """The run waits and its lease is closed; with the answer the handler runs from the top."""


class Asleep(Unwind):
    """The run goes on after `seconds`; until then nobody holds it."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(f"asleep for {seconds:.3f} s")


class Stopped(Unwind):
    """The attempt was stopped: lease lost or in doubt, run cancelled, or worker ending."""


class Refused(Unwind):
    """A call was refused and is not recorded, so what follows it could not be replayed."""

    def __init__(self, cause: Exception) -> None:
        self.cause = cause
        super().__init__(str(cause))


class HistoryMismatch(Unwind):
    """The run's history does not fit the handler; nothing was done."""

    def __init__(self, recorded: str, asked: str) -> None:
        self.recorded, self.asked = recorded, asked
        super().__init__(f"the history has {recorded} where the handler has {asked}: {_CHANGED}")


class OtherInput(HistoryMismatch):
    """The run has recorded calls of a handler that took its input; this handler does not."""

    def __init__(self, cause: Exception) -> None:
        self.recorded, self.asked = "an input that its handler took", "a type that it does not fit"
        Unwind.__init__(self, f"its input no longer fits: {cause}: {_CHANGED}")


class OtherVersion(HistoryMismatch):
    """The run was begun by another version of its handler; this one was not called."""

    def __init__(self, recorded: str, own: str | None) -> None:
        super().__init__(f"version {recorded!r}", "none" if own is None else f"version {own!r}")


class Stop(StrEnum):
    """Why an attempt is stopped from outside."""

    LOST = "the lease is lost"
    DOUBT = "no heartbeat went through, the lease may be lost"
    CANCEL = "somebody asked to cancel the run"
    SHUTDOWN = "the worker ends"
    NO_SLOT = "no slot became free in time"
