"""The duty that keeps one projection up with the events; any number of processes may run it."""

from __future__ import annotations

import asyncio
from typing import Any, Final, Never

from runfold.ledger import log, names
from runfold.ledger.errors import DatabaseUnavailable, LedgerError
from runfold.ledger.postgres.connections import Pool
from runfold.ledger.reading.subscription import Pauses
from runfold.projections.declared.catch_up import CatchUp
from runfold.projections.declared.projection import Projection
from runfold.projections.errors import ProjectionFailed, ProjectionPaused

AGAIN_SECONDS: Final = 1.0
STOPPED: Final = "projection_stopped"


class Projector:
    """Takes new events to a projection until cancelled; waits while it is stopped or paused."""

    def __init__(self, pool: Pool, projection: Projection) -> None:
        """Start nothing yet; the projection is installed."""
        self._catch_up, self._name = CatchUp(pool, projection), projection.name
        self._said: str | None = None

    async def run(self) -> Never:
        """Go on until cancelled. Raise OtherVersion, Redeclared, FeedMoved or FeedOnStandby."""
        pauses = Pauses()
        while True:
            try:
                taken = await self._catch_up.step()
            except ProjectionFailed as error:
                await self._wait(error, STOPPED)
            except (ProjectionPaused, DatabaseUnavailable) as error:
                await self._wait(error, names.PROJECTION_INTERRUPTED)
            else:
                if self._said is not None:
                    self._said = None
                    self._logger().warning(names.PROJECTION_GOES_ON)
                if taken is None:
                    await pauses.pause()
                else:
                    pauses.restart()

    async def _wait(self, error: LedgerError, event: str) -> None:
        if self._said != str(error):
            self._said = str(error)
            say = self._logger().error if event == STOPPED else self._logger().warning
            say(event, reason=str(error))
        await asyncio.sleep(AGAIN_SECONDS)

    def _logger(self) -> Any:
        return log.logger(projection=self._name)
