"""Waiting for a run to end, or to come to a state."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from time import monotonic
from typing import Final
from uuid import UUID

from runfold.ledger.arguments import check_states
from runfold.ledger.lifecycle import TERMINAL, State
from runfold.ledger.postgres.connections import Pool, fetch
from runfold.ledger.reading.runs import get
from runfold.ledger.run import Run
from runfold.ledger.validation import check_run_id

SOONEST_SECONDS: Final = 0.01
LATEST_SECONDS: Final = 1.0
"""The pause between two looks is a tenth of the time waited so far, within these.

See docs/decisions/0093."""
# Without the contents, which `get` reads once the run is there.
_STATE: Final = "SELECT state FROM ledger.run_state WHERE project_id = $1 AND run_id = $2"


async def wait(
    pool: Pool, project_id: str, run_id: UUID | str, state: State | str | Iterable[State | str]
) -> Run:
    """Return the run once it has ended or is in one of the states; see `Ledger.wait`."""
    checked = check_run_id(run_id)
    awaited = TERMINAL.union(check_states(state))
    began = monotonic()
    while True:
        rows = await fetch(pool, _STATE, project_id, checked)
        if not rows or rows[0]["state"] in awaited:  # get refuses a run that this login cannot see
            run = await get(pool, project_id, checked)
            if run.state in awaited:  # else it has gone on meanwhile
                return run
        waited = monotonic() - began
        await asyncio.sleep(min(max(waited / 10, SOONEST_SECONDS), LATEST_SECONDS))
