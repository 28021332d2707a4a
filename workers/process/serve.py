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
from runfold.workers.process.worker_thread import Opening, WorkerThread
from runfold.workers.worker import Worker


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
    worker = WorkerThread(opening, make, ready)
    last_resort = LastResort()
    signals = 0

    def stop() -> None:
        nonlocal signals
        signals += 1
        last_resort.within(worker.grace + END_SECONDS if signals == 1 else HURRY_SECONDS)
        worker.stop()

    with _hearing(stop), looking_less():
        worker.start()
        try:
            return not await worker.ended
        finally:
            last_resort.disarm()


@contextmanager
def _hearing(stop: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    with ExitStack() as stack:
        stack.callback(_HEARING.clear)
        _HEARING.set()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
            stack.callback(loop.remove_signal_handler, number)
        yield


def _deafen() -> None:
    """In a forked child: a signal for the child must not act as one for its parent."""
    if _HEARING.is_set():
        # A child of a handler's thread has that thread for its main one, and may handle signals.
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)


_HEARING: Final = threading.Event()
os.register_at_fork(after_in_child=_deafen)
