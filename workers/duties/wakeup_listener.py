"""Hears the wake-ups of a project on a connection of its own; polling stays the guarantee."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import asyncpg

from runfold.ledger import Ledger, log, names
from runfold.ledger.errors import ConfigurationError, DatabaseUnavailable
from runfold.ledger.operations.wakeups import CHANNEL
from runfold.ledger.postgres.connections import FAILURES, connect

PULSE_SECONDS: Final = 15.0
"""How often the connection is probed: one that died silently reports nothing."""
RETRY_SECONDS: Final = 1.0


class Wakeup:
    """Calls `look` at every wake-up of the project, and whenever it begins to listen."""

    def __init__(
        self, ledger: Ledger, look: Callable[[], None], *, pulse: float = PULSE_SECONDS
    ) -> None:
        """Start nothing yet. Raises ConfigurationError without a URL."""
        if ledger.url is None:
            raise ConfigurationError(
                "a worker needs a ledger that knows its URL: open it with Ledger.open"
            )
        self._url, self._project_id, self._look, self._pulse = (
            ledger.url,
            ledger.project_id,
            look,
            pulse,
        )
        self._ledger, self._hears = ledger, False

    async def run(self) -> None:
        """Listen; connect again when the connection is lost."""
        lost = False
        while True:
            try:
                connection = await connect(
                    self._url, "runfold-wakeup", prepared=self._ledger.settings.prepared_statements
                )
                try:
                    await self._listen(connection, again=lost)
                finally:
                    connection.terminate()
            except (DatabaseUnavailable, OSError, TimeoutError, *FAILURES) as error:
                if not lost:
                    self._log.warning(
                        names.WAKE_UPS_LOST, reason=str(error) or type(error).__name__
                    )
                lost = True
            await asyncio.sleep(RETRY_SECONDS)

    async def _listen(self, connection: asyncpg.Connection[Any], *, again: bool) -> None:
        ended = asyncio.Event()
        connection.add_termination_listener(lambda _: ended.set())
        await connection.add_listener(CHANNEL, self._heard)
        self._look()  # whatever came while nobody listened
        deaf = self._hears = False
        self._ledger.project.waker.wake()  # heard here, unless a pooler passes nothing on
        if again:
            self._log.warning(names.WAKE_UPS_HEARD_AGAIN)
        while not ended.is_set():
            try:
                async with asyncio.timeout(self._pulse):
                    await ended.wait()
            except TimeoutError:
                if not self._hears and not deaf:
                    deaf = True
                    self._log.warning(
                        names.WAKE_UPS_DEAF,
                        remedy="behind a pooler in transaction mode, set RUNFOLD_LISTEN=false",
                    )
                await connection.execute("SELECT 1", timeout=self._pulse)
        raise ConnectionError("the connection was closed")

    def _heard(self, _connection: object, _pid: int, _channel: str, project_id: object) -> None:
        if project_id == self._project_id:
            self._hears = True
            self._look()

    @property
    def _log(self) -> Any:
        return log.logger(project_id=self._project_id)
