"""How an attempt may end, as values that a handler returns."""

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
    """Call the run off from within."""

    reason: str | None = None


OUTCOMES: Final = (Fail, Retry, Cancel)
