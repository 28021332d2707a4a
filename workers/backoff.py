"""Backoff: the time between the attempts of a run."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from runfold.ledger.errors import InvalidValue
from runfold.ledger.validation import check_seconds

MAX_EXPONENT: Final = 64


@dataclass(frozen=True, slots=True)
class Backoff:
    """The time before the next attempt: `first`, times `factor` each attempt, at most `limit`.

    `jitter` is the part of the delay that is left to chance, so that runs that failed together do
    not come back together. Raises InvalidValue.
    """

    first: float | timedelta = 1.0
    factor: float = 2.0
    limit: float | timedelta = 300.0
    jitter: float = 0.25

    def __post_init__(self) -> None:
        """Refuse what cannot be a backoff."""
        check_seconds("first", self.first)
        check_seconds("limit", self.limit)
        if not 1 <= self.factor <= 100:  # noqa: PLR2004  beyond it, a delay is the limit
            raise InvalidValue("factor", self.factor, "must be 1 to 100")
        if not 0 <= self.jitter <= 1:
            raise InvalidValue("jitter", self.jitter, "must be 0 to 1")

    def delay(self, attempt: int) -> float:
        """Return the seconds to wait after attempt number `attempt` failed."""
        first, limit = (check_seconds("backoff", bound) for bound in (self.first, self.limit))
        whole = min(limit, first * self.factor ** min(attempt - 1, MAX_EXPONENT))
        return whole * (1 - self.jitter * random.random())  # noqa: S311  a delay, not a secret
