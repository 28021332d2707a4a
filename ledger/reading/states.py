"""Stored states against the fold of the events, which is made here and not by the database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from runfold.ledger.archive.record import ARCHIVES
from runfold.ledger.proof.fold import Drift, StateCheck

_PAGE: Final = 5_000
_IN_DATABASE: Final = f"""NOT EXISTS (
  SELECT FROM {ARCHIVES} AS archive WHERE archive.detached AND run.run_id >= archive.first
    AND run.run_id < archive.beyond)"""
STATES: Final = f"""
SELECT run.* FROM ledger.run_state AS run
WHERE run.project_id = $1 AND run.run_id BETWEEN $2 AND $3 AND {_IN_DATABASE}
"""
"""The states of a range whose events are in the database, not archived."""
_EVENTS: Final = """
SELECT * FROM ledger.event WHERE project_id = $1 AND run_id BETWEEN $2 AND $3
ORDER BY run_id, version
"""
_EVENTS_OF: Final = """
SELECT * FROM ledger.event WHERE project_id = $1 AND run_id = ANY ($2::uuid[])
ORDER BY run_id, version
"""
_STATES_OF: Final = f"""
SELECT run.* FROM ledger.run_state AS run
WHERE run.project_id = $1 AND run.run_id = ANY ($2::uuid[]) AND {_IN_DATABASE}
"""


async def drift_of_range(
    connection: Any, project_id: str, first: UUID, last: UUID
) -> tuple[int, list[Drift]]:
    """Compare the runs of a range in the connection's snapshot; return how many, and the drift."""
    check = StateCheck()
    async for event in connection.cursor(_EVENTS, project_id, first, last, prefetch=_PAGE):
        check.add(event)
    states = await connection.fetch(STATES, project_id, first, last)
    drift = list(check.drift(states))
    return len(states) + sum(not run.stored for run in drift), drift


async def drift_of_runs(connection: Any, project_id: str, runs: Sequence[UUID]) -> list[Drift]:
    """Compare these runs in the connection's snapshot; return those that drifted."""
    check = StateCheck()
    async for event in connection.cursor(_EVENTS_OF, project_id, runs, prefetch=_PAGE):
        check.add(event)
    states = await connection.fetch(_STATES_OF, project_id, runs)
    return sorted(check.drift(states), key=lambda drift: drift.run_id)
