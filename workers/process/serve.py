"""A worker as a process: it waits for its database, and works until a signal ends it."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from runfold.ledger import Ledger
from runfold.workers.process.bounds import END_SECONDS, HURRY_SECONDS
from runfold.workers.process.collector import looking_less
from runfold.workers.process.last_resort import LastResort
from runfold.workers.process.outside_watch import OutsideWatch
from runfold.workers.process.worker_thread import Opening, WorkerThread
from runfold.workers.worker import Worker

_LOOK_SECONDS: Final = 1.0
"""A signal that another thread than the main one was interrupted by wakes no loop."""


async def serve(
    opening: Opening,
    make: Callable[[Ledger], Worker],
    ready: Callable[[Worker], None],
) -> bool:
    """Run a worker until SIGTERM or SIGINT; a second signal gives everything back at once.

    Returns whether nothing was left to a reaper. A database that cannot be reached is waited for.
    `ready` is called when the worker begins, in its thread. The process ends END_SECONDS after the
    grace, or HURRY_SECONDS after a second signal, by force if need be, with the code UNFINISHED.
    Raises LedgerError when no waiting would help: a login that is refused, a
    schema that is missing; WorkerEnded when a handler ended the worker.
    """
    last_resort = LastResort()
    signals = 0

    def begun(made: Worker) -> None:
        watch.begin(made.grace + END_SECONDS, HURRY_SECONDS)
        ready(made)

    def stop() -> None:
        nonlocal signals
        signals += 1
        last_resort.within(worker.grace + END_SECONDS if signals == 1 else HURRY_SECONDS)
        worker.stop()

    worker = WorkerThread(opening, make, begun)
    with _hearing(stop) as watch, looking_less():
        worker.start()
        try:
            while not worker.ended.done():
                await asyncio.wait({worker.ended}, timeout=_LOOK_SECONDS)
            return not worker.ended.result()
        finally:
            last_resort.disarm()


@contextmanager
def _hearing(stop: Callable[[], None]) -> Iterator[OutsideWatch]:
    """Call `stop` in this thread's loop for each signal.

    Not by the loop's own handlers: those need the one wakeup file, which the watch outside reads.
    """
    loop = asyncio.get_running_loop()
    with ExitStack() as stack:
        stack.callback(_HEARING.clear)
        _HEARING.set()
        watch = OutsideWatch()
        stack.callback(watch.end)
        for number in (signal.SIGTERM, signal.SIGINT):
            before = signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop))
            stack.callback(signal.signal, number, before)
        yield watch


def _deafen() -> None:
    """In a forked child: a signal for the child must not act as one for its parent."""
    if _HEARING.is_set():
        # A child of a handler's thread has that thread for its main one, and may handle signals.
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)


_HEARING: Final = threading.Event()
os.register_at_fork(after_in_child=_deafen)
