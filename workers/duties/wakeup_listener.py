"""Listens for a project's wake-ups on its own connection; polling stays the guarantee."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import asyncpg

from runfold.ledger import Ledger, names
from runfold.ledger.errors import ConfigurationError, LedgerError
from runfold.ledger.postgres.connections import FAILURES, connect
from runfold.workers.duties.duty import RETRY_SECONDS, Duty, Interruption

_CHANNEL: Final = "SELECT ledger.channel($1)"
PULSE_SECONDS: Final = 15.0
"""How often the connection is probed: one that died silently reports nothing."""


class Wakeup(Duty):
    """Calls `look` at every wake-up of the project, and whenever it begins to listen."""

    def __init__(
        self, ledger: Ledger, look: Callable[[], None], *, pulse: float = PULSE_SECONDS
    ) -> None:
        """Start nothing yet. Raises ConfigurationError without a URL."""
        if ledger.url is None:
            raise ConfigurationError(
                "a worker needs a ledger that knows its URL: open it with Ledger.open"
            )
        super().__init__(project_id=ledger.project_id)
        self._ledger, self._url, self._look, self._pulse = ledger, ledger.url, look, pulse
        self._hears = False
        self._interruption = Interruption(self, names.WAKE_UPS_LOST, names.WAKE_UPS_HEARD_AGAIN)

    async def tick(self) -> None:
        """Listen until the connection is lost."""
        try:
            settings = self._ledger.settings
            connection = await connect(
                self._url,
                "runfold-wakeup",
                prepared=settings.prepared_statements,
                deadline=settings.statement_seconds,
            )
            try:
                await self._listen(connection)
            finally:
                connection.terminate()
        except (LedgerError, OSError, TimeoutError, *FAILURES) as error:
            self._interruption.begin(str(error) or type(error).__name__)

    def pause(self) -> float:
        """Return the seconds until it connects again."""
        return RETRY_SECONDS

    async def _listen(self, connection: asyncpg.Connection[Any]) -> None:
        ended = asyncio.Event()
        connection.add_termination_listener(lambda _: ended.set())
        channel = await connection.fetchval(_CHANNEL, self._ledger.project_id)
        await connection.add_listener(channel, self._heard)
        self._look()  # whatever came while nobody listened
        deaf = self._hears = False
        self._ledger.project.waker.wake()  # heard here, unless a pooler passes nothing on
        self._interruption.end()
        while not ended.is_set():
            try:
                async with asyncio.timeout(self._pulse):
                    await ended.wait()
            except TimeoutError:
                if not self._hears and not deaf:
                    deaf = True
                    self.log.warning(
                        names.WAKE_UPS_DEAF,
                        remedy="behind a pooler in transaction mode, set RUNFOLD_LISTEN=false",
                    )
                await connection.execute("SELECT 1", timeout=self._pulse)
        raise ConnectionError("the connection was closed")

    def _heard(self, *_: object) -> None:
        self._hears = True
        self._look()
