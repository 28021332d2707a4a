"""The tasks of a worker: each begins at once where Python can, and is known until it ends."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine, Iterator
from typing import Any, NoReturn


class Tasks:
    """Starts tasks and keeps those that have not ended: the event loop itself keeps none alive."""

    def __init__(self) -> None:
        self._open: set[asyncio.Task[None]] = set()

    def __iter__(self) -> Iterator[asyncio.Task[None]]:
        """Return an iterator over the tasks that have not ended."""
        return iter(set(self._open))

    def __bool__(self) -> bool:
        """Whether any has not ended."""
        return bool(self._open)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Start a task; from Python 3.12 it works at once until it waits, and may be over then."""
        loop = asyncio.get_running_loop()
        task = _begun(work, loop)
        if not task.done():
            self._open.add(task)
            task.add_done_callback(self._open.discard)


if sys.version_info >= (3, 12):

    def _begun(
        work: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop
    ) -> asyncio.Task[None]:
        return asyncio.Task(_ending_the_loop(work), loop=loop, eager_start=True)

else:

    def _begun(
        work: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop
    ) -> asyncio.Task[None]:
        task = loop.create_task(_ending_the_loop(work))
        task.add_done_callback(lambda _: work.close())  # it may be cancelled before it begins
        return task


async def _ending_the_loop(work: Coroutine[Any, Any, None]) -> None:
    """Await the work; an exit or Ctrl-C in it ends the loop, and is not lost in the task."""
    try:
        await work
    except (KeyboardInterrupt, SystemExit) as error:
        asyncio.get_running_loop().call_soon(_raise, error)


def _raise(error: BaseException) -> NoReturn:
    raise error
