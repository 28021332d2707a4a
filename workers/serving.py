"""A worker as a process: it works until a signal ends it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress

from workers.worker import Worker


async def serve(worker: Worker, ready: Callable[[], None], *, until_input_closes: bool = False) -> None:
    """Run a worker until SIGTERM or SIGINT, which let it finish; a second one has it give everything back at once.

    `ready` is called when the signals are heard.
    `until_input_closes`: also until standard input closes, which it does when the process at its other end dies.
    """
    loop = asyncio.get_running_loop()
    with ExitStack() as stack:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, worker.stop)
            stack.callback(loop.remove_signal_handler, number)
        if until_input_closes:
            loop.add_reader(sys.stdin.fileno(), _closed, loop, worker)
            stack.callback(loop.remove_reader, sys.stdin.fileno())
        ready()
        await worker.run()


def _closed(loop: asyncio.AbstractEventLoop, worker: Worker) -> None:
    with suppress(OSError):
        if os.read(sys.stdin.fileno(), 1):
            return
    loop.remove_reader(sys.stdin.fileno())
    worker.stop()
