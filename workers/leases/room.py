"""Room for the heart where a login has no connection left: the pool gives up one of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from runfold.ledger.postgres.connections import FAILURES, Pool

CLOSE_SECONDS: Final = 1.0


class Room:
    """Closes one connection of a pool when asked to; used from the loop of the pool.

    The pool keeps its last connection, without which it could do no work: then the heart reports
    that it has none.
    """

    def __init__(self, pool: Pool, patience: float, made: Callable[[], None]) -> None:
        """Wait `patience` seconds for a connection that is idle; call `made` when it is closed."""
        self._pool, self._patience, self._made = pool, patience, made
        self._task: asyncio.Task[None] | None = None

    def make(self) -> None:
        """Begin to make room, unless that is under way or the pool has no more than one."""
        if self._pool.get_size() > 1 and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._make())

    async def _make(self) -> None:
        with suppress(TimeoutError, OSError, *FAILURES):
            async with self._pool.acquire(timeout=self._patience) as connection:
                await connection.close(timeout=CLOSE_SECONDS)
            # The pool uses what is connected before it connects again what was closed.
            with suppress(RuntimeError):  # the heart's loop has closed
                self._made()
