"""Reading a file of the archive in a thread, which is left behind when the file's folder hangs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, ParamSpec, TypeAlias, TypeVar

from runfold.ledger.errors import ArchiveUnusable
from runfold.ledger.threads import in_thread

STILL_SECONDS: Final = 60.0
"""How long no step of reading may end: a page of rows, or a part of a digest."""
OnStep: TypeAlias = Callable[[], None]
"""What blocking work calls after each of its steps."""
P = ParamSpec("P")
T = TypeVar("T")


def unwatched() -> None:
    """End a step that nobody watches."""


class Watched:
    """Calls what reads a file, in a daemon thread: one that hangs does not keep the process."""

    def __init__(self, path: Path) -> None:
        self._path, self._stepped = path, 0.0

    def step(self) -> None:
        """Note that a step has ended; from any thread."""
        self._stepped = time.monotonic()

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what a function returns. Raises ArchiveUnusable when it takes no more steps."""
        self.step()
        reading = asyncio.create_task(in_thread("runfold-archive", function, *args, **kwargs))
        try:
            while not reading.done():
                left = self._stepped + STILL_SECONDS - time.monotonic()
                if left <= 0:
                    problem = f"could not be read any further for {STILL_SECONDS:g} s"
                    raise ArchiveUnusable(str(self._path), problem)
                await asyncio.wait([reading], timeout=left)
            return reading.result()
        finally:
            reading.cancel()
