"""A worker as a process: it waits for its database, and works until a signal ends it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    ExitStack,
    contextmanager,
    suppress,
)
from typing import Final

from runfold.ledger import Ledger, log, names
from runfold.ledger.errors import DatabaseUnavailable
from runfold.workers.worker import Worker

AGAIN_SECONDS: Final = 1.0
SAID_AGAIN_AFTER: Final = 60
"""So many tries later it is said again that the database is away."""

Opening = Callable[[], AbstractAsyncContextManager[Ledger]]


async def serve(
    opening: Opening,
    make: Callable[[Ledger], Worker],
    ready: Callable[[Worker], None],
    *,
    until_input_closes: bool = False,
) -> None:
    """Run a worker until SIGTERM or SIGINT; a second signal gives everything back at once.

    A database that cannot be reached is waited for. `ready` is called when the worker begins.
    `until_input_closes`: also until standard input closes, which it does when the process at its
    other end dies. Raises LedgerError when no waiting would help: a login that is refused, a schema
    that is missing.
    """
    worker: Worker | None = None
    stopped = False

    def stop() -> None:
        nonlocal stopped
        stopped = True
        if worker is not None:
            worker.stop()
        else:
            waiting.cancel()

    async with AsyncExitStack() as stack:
        waiting = asyncio.create_task(when_it_answers(opening, stack))
        with _hearing(stop, until_input_closes=until_input_closes):
            await asyncio.wait({waiting})
            if waiting.cancelled() or (
                stopped and not waiting.exception()
            ):  # the signal may come when it has just answered
                return
            worker = make(waiting.result())
            ready(worker)
            await worker.run()


async def when_it_answers(opening: Opening, stack: AsyncExitStack) -> Ledger:
    """Open a ledger as soon as its database can be reached; the stack closes it.

    Raises LedgerError when no waiting would help.
    """
    tries = 0
    while True:
        try:
            ledger = await stack.enter_async_context(opening())
        except DatabaseUnavailable as error:
            if not error.temporary:
                raise
            if tries % SAID_AGAIN_AFTER == 0:
                log.logger().warning(names.WAITING_FOR_DATABASE, reason=str(error))
            tries += 1
            await asyncio.sleep(AGAIN_SECONDS)
        else:
            if tries:
                log.logger().warning(names.DATABASE_ANSWERS, tries=tries)
            return ledger


@contextmanager
def _hearing(stop: Callable[[], None], *, until_input_closes: bool) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    with ExitStack() as stack:
        stack.callback(_HEARING.clear)
        _HEARING.set()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
            stack.callback(loop.remove_signal_handler, number)
        if until_input_closes:
            loop.add_reader(sys.stdin.fileno(), _closed, loop, stop)
            stack.callback(loop.remove_reader, sys.stdin.fileno())
        yield


def _deafen() -> None:
    """In a forked child: a signal for the child must not act as one for its parent."""
    if _HEARING.is_set():
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)


_HEARING: Final = threading.Event()
os.register_at_fork(after_in_child=_deafen)


def _closed(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
    with suppress(OSError):
        if os.read(sys.stdin.fileno(), 1):
            return
    loop.remove_reader(sys.stdin.fileno())
    stop()
