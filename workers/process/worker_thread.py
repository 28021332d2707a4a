"""A worker in a thread and loop of its own: what a handler does to the loop ends nothing unseen."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from typing import Final, TypeVar
from uuid import UUID

from runfold.ledger import Ledger, log, names
from runfold.ledger.errors import DatabaseUnavailable
from runfold.workers.errors import WorkerEnded
from runfold.workers.shared_limits import SharedLimits
from runfold.workers.worker import Worker

RETRY_SECONDS: Final = 1.0
REPORTED_EVERY: Final = 60
"""One of this many tries to reach the database is logged."""
UNWIND_SECONDS: Final = 2.0
"""How long what is left in the loop may take to end."""

Opening = Callable[[], AbstractAsyncContextManager[Ledger]]
Opened = TypeVar("Opened")


class WorkerThread:
    """Opens a ledger and runs a worker, away from the main thread and its signals.

    The interpreter lets only the main thread handle signals, so no handler can take them.
    """

    def __init__(
        self, opening: Opening, make: Callable[[Ledger], Worker], ready: Callable[[Worker], None]
    ) -> None:
        self._opening, self._make, self._ready = opening, make, ready
        self._home, self._loop = asyncio.get_running_loop(), asyncio.new_event_loop()
        self.ended: asyncio.Future[list[UUID]] = self._home.create_future()
        """Done when the worker has ended: with the runs that it left to the reaper, with a
        LedgerError, or with WorkerEnded if a handler ended it."""
        self._worker: Worker | None = None
        self._waiting: asyncio.Task[Ledger] | None = None
        self._stopping = False
        self._limits = SharedLimits()

    def start(self) -> None:
        """Begin."""
        main = contextvars.copy_context().run
        threading.Thread(
            target=main, args=(self._main,), name="runfold-worker", daemon=True
        ).start()

    def stop(self) -> None:
        """Stop the worker, as `Worker.stop`; call it from the thread that made this."""
        with suppress(RuntimeError):  # its loop has closed
            self._loop.call_soon_threadsafe(self._stop)

    @property
    def grace(self) -> float:
        """The seconds that runs may go on for; 0 while the database is waited for."""
        return 0.0 if self._worker is None else self._worker.grace

    # -- in the thread

    def _main(self) -> None:
        asyncio.set_event_loop(self._loop)
        task = self._loop.create_task(self._work())
        error: BaseException | None = None
        try:
            self._loop.run_until_complete(task)
        except BaseException as raised:  # such as SystemExit in a task that a handler started
            error = raised
        self._limits.restore()
        if not task.done() or (task.cancelled() and not self._stopping):
            error = WorkerEnded(error or RuntimeError("the loop was stopped"))
            self._abandon(task)
        self._clear_up()
        with suppress(RuntimeError):  # the main loop has closed
            self._home.call_soon_threadsafe(self._settle, error)

    async def _work(self) -> None:
        async with AsyncExitStack() as stack:
            self._waiting = asyncio.create_task(when_it_answers(self._opening, stack))
            if self._stopping:
                self._waiting.cancel()
            await asyncio.wait({self._waiting})
            # It may be told to stop when the database has just answered.
            if self._waiting.cancelled() or (self._stopping and not self._waiting.exception()):
                return
            self._worker = self._make(self._waiting.result())
            self._ready(self._worker)
            await self._worker.run()

    def _stop(self) -> None:
        self._stopping = True
        if self._worker is not None:
            self._worker.stop()
        elif self._waiting is not None:
            self._waiting.cancel()

    def _abandon(self, task: asyncio.Task[None]) -> None:
        """Close what is open and beat no more, as if the process had died."""
        if self._worker is not None:
            self._worker.abandon()
        task.cancel()
        with suppress(BaseException):
            self._loop.run_until_complete(asyncio.wait({task}, timeout=UNWIND_SECONDS))

    def _clear_up(self) -> None:
        """End what handlers left in the loop, as far as it lets itself be ended."""
        self._loop.set_exception_handler(lambda *_: None)
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        with suppress(BaseException):
            if left:
                self._loop.run_until_complete(asyncio.wait(left, timeout=UNWIND_SECONDS))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            if not asyncio.all_tasks(self._loop):
                self._loop.close()

    def _settle(self, error: BaseException | None) -> None:
        if self.ended.done():
            return
        if error is None:
            self.ended.set_result([] if self._worker is None else self._worker.left)
        else:
            self.ended.set_exception(error)


async def when_it_answers(
    opening: Callable[[], AbstractAsyncContextManager[Opened]], stack: AsyncExitStack
) -> Opened:
    """Open a ledger or database as soon as the server can be reached; the stack closes it.

    Raises LedgerError when no waiting would help.
    """
    tries = 0
    while True:
        try:
            opened = await stack.enter_async_context(opening())
        except DatabaseUnavailable as error:
            if not error.temporary:
                raise
            if tries % REPORTED_EVERY == 0:
                log.logger().warning(names.WAITING_FOR_DATABASE, reason=str(error))
            tries += 1
            await asyncio.sleep(RETRY_SECONDS)
        else:
            if tries:
                log.logger().warning(names.DATABASE_ANSWERS, tries=tries)
            return opened
