"""How often a caller may ask: a bucket of permits for each, which fills steadily (pure)."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final

from runfold.ledger.errors import LedgerError

MAX_CALLERS: Final = 10_000
"""How many callers are remembered; one that is forgotten begins with a full bucket."""


class TooManyRequests(LedgerError):
    """The caller asks more often than it may; nothing was done."""

    def __init__(self, retry_after: int) -> None:
        self.retry_after = retry_after
        super().__init__(f"too many requests: try again in {retry_after} s")


class Rates:
    """Allows each caller `a_second` requests a second, and `burst` of them at once."""

    def __init__(
        self, a_second: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._a_second, self._burst, self._clock = a_second, burst, clock
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def take(self, caller: Hashable) -> None:
        """Take a permit of the caller's. Raises TooManyRequests."""
        now = self._clock()
        left, since = self._buckets.pop(caller, (float(self._burst), now))
        left = min(self._burst, left + (now - since) * self._a_second)
        allowed = left >= 1
        self._buckets[caller] = (left - 1 if allowed else left, now)
        if len(self._buckets) > MAX_CALLERS:
            self._buckets.popitem(last=False)
        if not allowed:
            raise TooManyRequests(math.ceil((1 - left) / self._a_second))
