"""How many runs a worker leases before it has slots for them: as many as will begin at once."""

from __future__ import annotations

import math
import time
from typing import Final

SOON_SECONDS: Final = 0.03
"""How long a run may be expected to wait for its slot."""
PATIENCE_SECONDS: Final = 0.1
"""How long it may wait in fact, before it is given back to whoever has a slot."""
EACH: Final = 50
"""The most runs ahead for each slot; their leases have to lapse when the worker dies."""
MOST: Final = 500
"""Runs ahead at most: in larger statements a run costs no less."""
MEMORY_SECONDS: Final = 0.1
"""How far back the measured pace reaches."""


class Pace:
    """The attempts that end in a second, as lately measured; slow ones allow no run ahead."""

    def __init__(self, slots: int) -> None:
        """Begin without a pace: no run is leased ahead before one was measured."""
        self._most = min(slots * EACH, MOST)
        self._ended, self._per_second = 0, 0.0
        self._since = time.monotonic()

    def ended(self) -> None:
        """Count an attempt that has ended."""
        self._ended += 1

    def forget(self) -> None:
        """Forget the pace: a run ahead did not begin in time."""
        self._ended, self._per_second, self._since = 0, 0.0, time.monotonic()

    def ahead(self) -> int:
        """Measure, and return how many runs more than there are slots will begin soon."""
        now = time.monotonic()
        if (seconds := now - self._since) > 0:
            kept = math.exp(-seconds / MEMORY_SECONDS)
            lately = self._ended / seconds
            self._per_second = kept * self._per_second + (1 - kept) * lately
            self._ended, self._since = 0, now
        return min(int(self._per_second * SOON_SECONDS), self._most)
