"""What a process that a handler forks must not do: go on as a second copy of its worker."""

from __future__ import annotations

import asyncio

# Here, and not at the first call of a thread: a handler that forks meanwhile would release the lock
# of that module without having taken it, and so fail the call of another handler.
import concurrent.futures.thread  # noqa: F401  registers what a fork does with its lock
import os
import threading
from contextlib import suppress
from typing import Final, NoReturn
from weakref import WeakSet

ENDED: Final = 1
"""The exit code of a forked process that came back to the worker."""
_WORDS: Final = (
    b"a process that a handler forked came back to the worker, and was ended: "
    b"let it end by os._exit, or use multiprocessing\n"
)
_STDERR: Final = 2
_loops: Final[WeakSet[asyncio.AbstractEventLoop]] = WeakSet()
_here: Final = threading.local()


def guard(loop: asyncio.AbstractEventLoop) -> None:
    """Have a process end that is forked within this loop as soon as it comes back to the loop.

    It would go on with the runs of all other handlers, and take the answers of the server from the
    connections that it shares with the worker.
    """
    _loops.add(loop)


def end() -> NoReturn:
    """End this process, which was forked, and say why; nothing of its parent is cleaned up."""
    with suppress(OSError):
        os.write(_STDERR, _WORDS)
    os._exit(ENDED)


def _before() -> None:
    _here.loop = asyncio._get_running_loop()  # noqa: SLF001  in the child there is none any more


def _in_child() -> None:
    loop = _here.loop
    if loop in _loops:
        # Those that are ready come first: they are of other handlers. A loop that hides them does
        # them once more.
        getattr(loop, "_ready", []).clear()
        loop.call_soon(end)


os.register_at_fork(before=_before, after_in_child=_in_child)
