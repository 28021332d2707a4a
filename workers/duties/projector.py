"""The duty that keeps one projection up with the events; any number of processes may run it."""

from __future__ import annotations

from runfold.ledger import names
from runfold.ledger.errors import CheckpointUnknown, DatabaseUnavailable, FeedArchived
from runfold.ledger.postgres.connections import Pool
from runfold.ledger.reading.subscription import Pauses
from runfold.projections.declared.catch_up import CatchUp
from runfold.projections.declared.projection import Projection
from runfold.projections.errors import ProjectionFailed, ProjectionPaused
from runfold.workers.duties.duty import RETRY_SECONDS, Duty, Interruption


class Projector(Duty):
    """Takes new events to a projection until cancelled; waits while it is stopped or paused."""

    def __init__(self, pool: Pool, projection: Projection) -> None:
        """Start nothing yet; the projection is installed."""
        super().__init__(projection=projection.name)
        self._catch_up = CatchUp(pool, projection)
        self._pauses, self._pause = Pauses(), 0.0
        self._interruption = Interruption(
            self, names.PROJECTION_INTERRUPTED, names.PROJECTION_GOES_ON
        )

    async def tick(self) -> None:
        """Take one page. Raise OtherVersion, Redeclared, FeedMoved or FeedOnStandby."""
        self._pause = RETRY_SECONDS
        try:
            taken = await self._catch_up.step()
        except (ProjectionFailed, FeedArchived, CheckpointUnknown) as error:
            # A rebuild puts it right, and it goes on from there.
            self._interruption.begin_error(names.PROJECTION_STOPPED, str(error))
        except (ProjectionPaused, DatabaseUnavailable) as error:
            self._interruption.begin(str(error))
        else:
            self._interruption.end()
            if taken is not None:
                self._pauses.restart()
            self._pause = 0.0 if taken is not None else self._pauses.following()

    def pause(self) -> float:
        """Return the seconds until the next page: longer while nothing is new."""
        return self._pause
