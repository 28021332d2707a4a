"""Duties that run until a signal ends them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def until_terminated() -> Iterator[None]:
    """Let SIGTERM end the work within, quietly; Ctrl-C ends it as ever.

    The first process of a container is not ended by a signal that it does not handle: it would be
    killed after the grace, and its exit code would tell of a fault.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    terminated = asyncio.Event()

    def end() -> None:
        terminated.set()
        task.cancel()

    loop.add_signal_handler(signal.SIGTERM, end)
    try:
        yield
    except asyncio.CancelledError:
        if not terminated.is_set():
            raise
        task.uncancel()
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
