"""The duty that compares samples of the inline projection with the events, and reports drift."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final
from uuid import UUID

from runfold.ledger import Ledger, names
from runfold.ledger.errors import LedgerError
from runfold.ledger.proof.fold import Drift
from runfold.ledger.validation import check_int, check_seconds
from runfold.projections.state.drift import sample
from runfold.workers.duties.duty import Duty, Interruption, jittered

MAX_KNOWN: Final = 10_000


class Sampler(Duty):
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
        super().__init__(sleep=sleep, project_id=ledger.project_id)
        self.ledger = ledger
        self.every = check_seconds("every", every, positive=True)
        self.size = check_int("size", size, least=1, most=10_000)
        self.checked = 0
        """Comparisons made so far."""
        self._known: dict[UUID, Drift] = {}
        self._interruption = Interruption(self, names.SAMPLER_INTERRUPTED, names.SAMPLER_RESUMES)

    async def tick(self) -> list[Drift]:
        """Compare one sample; return the drift that was not reported before."""
        try:
            compared, drifted = await sample(self.ledger, self.size)
        except LedgerError as error:
            self._interruption.begin(str(error))
            return []
        self._interruption.end()
        self.checked += compared
        return [drift for drift in drifted if self._is_news(drift)]

    def pause(self) -> float:
        """Return the seconds until the next sample."""
        return jittered(self.every)

    def _is_news(self, drift: Drift) -> bool:
        if self._known.get(drift.run_id) == drift:
            return False
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        self._known[drift.run_id] = drift
        self.log.error(
            names.DRIFTED,
            run_id=str(drift.run_id),
            columns=sorted(drift.columns),
            detail=str(drift),
        )
        return True
