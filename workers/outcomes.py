"""How an attempt may end, as values: some a handler returns, the others are what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from runfold.ledger.lifecycle import HANDLER_FAILED


@dataclass(frozen=True, slots=True)
class Fail:
    """End the run as failed, whatever attempts are left; `detail` is JSON."""

    error_code: str
    detail: Any = None


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again `after` this time (None: by the kind's backoff); failed if no attempt is left."""

    after: float | timedelta | None = None
    error_code: str = HANDLER_FAILED
    detail: Any = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """End the run as cancelled, from within its handler."""

    reason: str | None = None


OUTCOMES: Final = (Fail, Retry, Cancel)


@dataclass(frozen=True, slots=True)
class Done:
    """The handler returned this output, here as JSON."""

    output: Any


@dataclass(frozen=True, slots=True)
class GiveBack:
    """The run is pending again, after a delay in seconds; no attempt is charged.

    With a reason, this process cannot do the run: it waits for another one.
    """

    delay: float = 0.0
    error_code: str | None = None
    reason: str | None = None


Ending = Done | Fail | Retry | Cancel | GiveBack | None
"""What is to be written at the end; None for nothing, because the run is parked or lost."""
