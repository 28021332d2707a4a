"""Leases that a worker was given in an answer that was lost: it gives them back unbegun."""

from __future__ import annotations

import time
from collections.abc import Collection
from datetime import timedelta
from typing import Final
from uuid import UUID

from runfold.ledger import Ledger, log, names
from runfold.ledger.operations.columns import columns
from runfold.ledger.operations.requeue import RELEASED, REQUEUE, RequeueRow
from runfold.ledger.postgres.connections import fetch
from runfold.workers.leases.deadline import within

# Nothing was appended since the lease, not even a beat: nobody works under it. A worker's id is its
# own, so no other process can. A lease after which others appended something is left to the reaper.
_UNBEGUN: Final = """
SELECT run_id, token FROM ledger.run_state
WHERE project_id = $1 AND token > 0 AND worker_id = $2 AND version = token
"""


class Strays:
    """Looks for leases of a worker that it does not know it holds, while there may be any."""

    def __init__(self, ledger: Ledger, worker_id: str) -> None:
        self._ledger, self._worker_id = ledger, worker_id
        self._patience = ledger.settings.lease_ttl_seconds
        self._until = 0.0

    def suspect(self) -> None:
        """Note that a claim was not answered; the server may work on it for a while yet."""
        self._until = time.monotonic() + self._patience

    async def give_back(self, held: Collection[tuple[UUID, int]]) -> None:
        """Give back what is not `held`, uncharged, if a claim was lost lately.

        `held` are runs and tokens. Raises as `within` does.
        """
        if time.monotonic() < self._until:
            await within(self._patience, self._give_back(held), has_content=False)

    async def _give_back(self, held: Collection[tuple[UUID, int]]) -> None:
        project = self._ledger.project
        unbegun = await fetch(project.pool, _UNBEGUN, project.project_id, self._worker_id)
        rows = [
            RequeueRow(row["run_id"], row["token"], timedelta(0), None, None, self._worker_id)
            for row in unbegun
            if (row["run_id"], row["token"]) not in held
        ]
        if rows:
            await fetch(project.pool, REQUEUE, project.project_id, RELEASED, *columns(rows))
            log.logger(project_id=project.project_id, worker_id=self._worker_id).warning(
                names.STRAYS_GIVEN_BACK, runs=[str(row.run_id) for row in rows]
            )
