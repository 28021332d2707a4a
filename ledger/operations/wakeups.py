"""Wake-ups for idle workers: hints, one for many writes, sent after the commit when it is busy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from runfold.ledger import log, names
from runfold.ledger.errors import LedgerError
from runfold.ledger.postgres.connections import Pool, fetch

WITH_A_WRITE: Final = "(SELECT pg_notify(ledger.channel($1), ''))"
"""What a write selects besides its rows to wake workers as it commits: once for all rows."""
NOTIFY: Final = f"SELECT {WITH_A_WRITE}"
LIMIT_EXCEEDED: Final = "54000"
"""The SQLSTATE of a commit that finds the server's queue of NOTIFY full, and rolls back."""
COALESCED_SECONDS: Final = 0.002
QUIET_SECONDS: Final = 0.01
"""How long there must have been no wake-up for the next to go with the write itself."""
FLUSH_SECONDS: Final = 2.0
"""How long closing waits for the last wake-up: a server may never answer."""


class Waker:
    """Tells a project's workers that there may be work: at once, then at most every 2 ms.

    A NOTIFY within each write would make all writers wait for one another when they commit. One
    after a quiet moment goes with its write, and saves the first run the time of a statement.
    """

    def __init__(
        self,
        pool: Pool,
        project_id: str,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._pool, self._project_id, self._sleep = pool, project_id, sleep
        self._asked = False
        self._sending: asyncio.Task[None] | None = None
        self._woken_at = -QUIET_SECONDS

    def goes_with_write(self) -> bool:
        """Whether the caller is to write with WITH_A_WRITE now, and not to call `wake`."""
        now = time.monotonic()
        is_quiet = now - self._woken_at >= QUIET_SECONDS
        self._woken_at = now
        return is_quiet

    def wake(self) -> None:
        """Send a wake-up soon; call it after the commit."""
        self._asked = True
        self._woken_at = time.monotonic()
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send())

    async def flush(self) -> None:
        """Wait until every wake-up is sent, or for two seconds: it is a hint."""
        if self._sending is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._sending, FLUSH_SECONDS)

    async def _send(self) -> None:
        while self._asked:
            self._asked = False
            try:
                await fetch(self._pool, NOTIFY, self._project_id)
            except LedgerError as error:  # a hint only: polling finds the work
                log.logger(project_id=self._project_id).info(
                    names.WAKE_UP_FAILED, reason=str(error)
                )
            await self._sleep(COALESCED_SECONDS)
