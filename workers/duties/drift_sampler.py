"""The duty that compares samples of the inline projection with the events, and reports drift."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final
from uuid import UUID

from runfold.ledger import Ledger, log, names
from runfold.ledger.errors import LedgerError
from runfold.ledger.validation import check_duration, check_int
from runfold.projections.state.drift import Drift, sample

JITTER: Final = 0.1
MAX_KNOWN: Final = 10_000


class Sampler:
    """Samples one project until cancelled, waiting for a database that is away; repairs nothing."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        every: float = 10,
        size: int = 200,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """Start nothing yet; `every` is in seconds, `size` in runs. Raises InvalidValue."""
        self.ledger = ledger
        self.every = check_duration("every", every, positive=True).total_seconds()
        self.size = check_int("size", size, least=1, most=10_000)
        self.checked = 0
        """Comparisons made so far."""
        self._sleep = sleep
        self._known: dict[UUID, Drift] = {}
        self._failing = False

    async def run(self) -> None:
        """Sample until cancelled."""
        while True:
            await self.tick()
            # Duties that were started together must not sample together for ever.
            await self._sleep(self.every * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311  a delay, not a secret

    async def tick(self) -> list[Drift]:
        """Compare one sample; give the drift that was not said before."""
        try:
            compared, found = await sample(self.ledger, self.size)
        except LedgerError as error:
            if not self._failing:
                self._logger().warning(names.SAMPLER_INTERRUPTED, reason=str(error))
            self._failing = True
            return []
        if self._failing:
            self._failing = False
            self._logger().warning(names.SAMPLER_RESUMES)
        self.checked += compared
        return [drift for drift in found if self._is_news(drift)]

    def _is_news(self, drift: Drift) -> bool:
        if self._known.get(drift.run_id) == drift:
            return False
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        self._known[drift.run_id] = drift
        self._logger().error(
            names.DRIFTED,
            run_id=str(drift.run_id),
            columns=sorted(drift.columns),
            detail=str(drift),
        )
        return True

    def _logger(self) -> Any:
        return log.logger(project_id=self.ledger.project_id)
