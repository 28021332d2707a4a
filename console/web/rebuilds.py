"""Rebuilds of projections that were begun on a page; the page shows how far each is.

A rebuild runs in this process. If the process ends first, the next rebuild of the projection, begun
here or by `runfold projections rebuild`, resumes it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from runfold.console.web.problems import reason_of
from runfold.ledger.postgres.connections import Pool
from runfold.projections.declared.exchange import Order
from runfold.projections.declared.projection import Projection
from runfold.projections.declared.refold import refold
from runfold.projections.rebuild_plan import RebuildProgress

RANGES: Final = 1
"""Ranges that are filled at a time: pages need connections, too."""


@dataclass(slots=True)
class Rebuilding:
    """One rebuild: on its way, done, or ended by an error."""

    order: Order
    progress: RebuildProgress | None = None
    wrong: int | None = None
    """Rows that were wrong; None until the rebuild is done."""
    error: str | None = None
    is_done: bool = False


class Rebuilds:
    """The last rebuild of each projection that a server began, by the projection's name."""

    def __init__(self) -> None:
        self._rebuilds: dict[str, Rebuilding] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def begin(self, pool: Pool, projection: Projection, order: Order) -> None:
        """Begin to rebuild a projection, unless it is being rebuilt here."""
        if self.is_running(projection.name):
            return
        rebuilding = self._rebuilds[projection.name] = Rebuilding(order)
        self._tasks[projection.name] = asyncio.create_task(_rebuild(pool, projection, rebuilding))

    def is_running(self, name: str) -> bool:
        """Whether a projection is being rebuilt here."""
        task = self._tasks.get(name)
        return task is not None and not task.done()

    def find(self, name: str) -> Rebuilding | None:
        """Return the last rebuild of a projection that was begun here."""
        return self._rebuilds.get(name)

    async def end(self) -> None:
        """End all rebuilds; what they have done so far is kept."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)


async def _rebuild(pool: Pool, projection: Projection, rebuilding: Rebuilding) -> None:
    def advance(progress: RebuildProgress) -> None:
        rebuilding.progress = progress

    try:
        done = await refold(
            pool, projection, connections=RANGES, on_progress=advance, order=rebuilding.order
        )
        rebuilding.progress, rebuilding.wrong, rebuilding.is_done = done.progress, done.wrong, True
    except Exception as error:
        rebuilding.error = reason_of(error)
