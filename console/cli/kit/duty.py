"""Duties that run until a signal ends them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from runfold.workers.process.bounds import END_SECONDS, HURRY_SECONDS
from runfold.workers.process.last_resort import LastResort


@contextmanager
def until_terminated() -> Iterator[None]:
    """End the block without an error on SIGTERM; Ctrl-C interrupts as usual.

    The first process of a container is not ended by a signal that it does not handle: it would be
    killed after the grace, with the exit code of a fault. A server that does not answer cannot hold
    the process up: it ends ten seconds after the first signal, or two after another.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    terminated, last_resort = asyncio.Event(), LastResort()

    def end() -> None:
        last_resort.within(HURRY_SECONDS if terminated.is_set() else END_SECONDS)
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
        last_resort.disarm()
