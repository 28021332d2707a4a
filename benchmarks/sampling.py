"""A profiler of CPU time that does not slow down what it measures: it looks at clock ticks.

A tracing profiler makes every call dearer, so it would show the code with the most calls.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from types import FrameType
from typing import Final, Self

EVERY_SECONDS: Final = 0.001
MOST: Final = 25
"""How many places are named."""
_OWN: Final = ("/workers/", "/ledger/")
_NAMED: Final = ("asyncpg", "asyncio", "pydantic")


class Sampler:
    """Counts where this process spends its CPU time, if PROFILE is set; main thread only."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()
        self._enabled = bool(os.environ.get("PROFILE"))

    def __enter__(self) -> Self:
        """Begin."""
        if self._enabled:
            signal.signal(signal.SIGPROF, self._look)
            signal.setitimer(signal.ITIMER_PROF, EVERY_SECONDS, EVERY_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        if self._enabled:
            signal.setitimer(signal.ITIMER_PROF, 0)

    def parts(self, total: float) -> dict[str, float]:
        """Return the places with the largest parts of the total, and their parts."""
        count = sum(self._seen.values())
        return {place: round(total * n / count, 2) for place, n in self._seen.most_common(MOST)}

    def _look(self, _: int, frame: FrameType | None) -> None:
        self._seen[_place(frame)] += 1


def _place(frame: FrameType | None) -> str:
    """Return the innermost function of Runfold on the stack, and the library it called, if any."""
    library = ""
    while frame is not None:
        name = frame.f_code.co_filename
        if any(own in name for own in _OWN) and "site-packages" not in name:
            own = "/".join(name.rsplit("/", 2)[-2:])
            return f"{own} {frame.f_code.co_qualname}{library}"
        library = library or next((f" ({known})" for known in _NAMED if known in name), "")
        frame = frame.f_back
    return library.strip(" ()") or "other"
