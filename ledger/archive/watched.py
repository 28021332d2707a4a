"""Reading a file of the archive in a thread, which is left behind when the file's folder hangs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, ParamSpec, TypeAlias, TypeVar

from runfold.ledger.errors import ArchiveUnusable

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
        loop = asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()

        def work() -> None:
            try:
                outcome: tuple[Callable[..., None], object] = (
                    result.set_result, function(*args, **kwargs),
                )  # fmt: skip
            except BaseException as error:  # any error belongs to the caller that waits
                outcome = (result.set_exception, error)
            with suppress(RuntimeError):  # the loop has closed: nobody waits any more
                loop.call_soon_threadsafe(_settle, result, *outcome)

        self.step()
        threading.Thread(target=work, name="runfold-archive", daemon=True).start()
        while not result.done():
            left = self._stepped + STILL_SECONDS - time.monotonic()
            if left <= 0:
                result.cancel()
                problem = f"could not be read any further for {STILL_SECONDS:g} s"
                raise ArchiveUnusable(str(self._path), problem)
            await asyncio.wait([result], timeout=left)
        return result.result()


def _settle(result: asyncio.Future[T], settle: Callable[[object], None], value: object) -> None:
    if not result.done():
        settle(value)
