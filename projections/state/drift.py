"""Drift: where run_state is not the fold of the events, column by column.

Events are folded here, in Python, because the database's own fold made the states that are
compared. Every comparison is made in one snapshot: writers go on, and nothing they do looks like
drift.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, TypeAlias
from uuid import UUID

from runfold.ledger import Ledger
from runfold.ledger.archive.reading import whole_runs
from runfold.ledger.archive.record import detached
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.proof.fold import Drift, StateCheck
from runfold.ledger.reading import archive_checks
from runfold.ledger.reading.permitted import check_may_read
from runfold.ledger.reading.snapshot import ranges, snapshot
from runfold.ledger.reading.states import drift_of_range, drift_of_runs

__all__ = ["Comparison", "Drift", "check", "compare", "sample"]

Progress: TypeAlias = Callable[[int], None]

_ENDS: Final = """
SELECT (SELECT run_id FROM ledger.event WHERE project_id = $1 ORDER BY run_id LIMIT 1) AS first,
  (SELECT run_id FROM ledger.event WHERE project_id = $1 ORDER BY run_id DESC LIMIT 1) AS last
"""
_NEXT: Final = """
SELECT DISTINCT run_id FROM ledger.event WHERE project_id = $1 AND run_id >= $2
ORDER BY run_id LIMIT $3
"""
# What was written last, in any project.
_RECENT: Final = """
SELECT DISTINCT event.run_id FROM ledger.newest_events($2) AS event WHERE event.project_id = $1
"""


def check(ledger: Ledger, progress: Progress | None = None) -> Comparison:
    """Return the comparison of every run of the project, which is made while it is iterated over.

    `progress` is called with how many runs are done.
    """
    return Comparison(ledger, progress)


class Comparison:
    """Compares every run of a project, range by range; iterating yields those that drifted.

    No statement folds more than a range, and no snapshot is held. Archived months come last, from
    their files; a row of theirs is repaired by a replay, which has them attached.
    """

    def __init__(self, ledger: Ledger, progress: Progress | None) -> None:
        """Compare nothing yet."""
        self._ledger, self._progress = ledger, progress
        self.runs = 0
        """How many runs were compared so far."""
        self.differ = 0
        """How many of them drifted."""

    async def __aiter__(self) -> AsyncIterator[Drift]:
        """Compare, and yield each run that drifted. Raises AccessDenied."""
        pool, project_id = self._ledger.pool, self._ledger.project_id
        await check_may_read(pool, project_id)
        async for first, last in ranges(pool, project_id):
            async with snapshot(pool) as connection:
                runs, drift = await drift_of_range(connection, project_id, first, last)
            for drifted in self._counted(runs, drift):
                yield drifted
            if self._progress is not None:
                self._progress(self.runs)
        for month in await detached(pool):
            async for first, last, rows in whole_runs(month, project_id):
                check = StateCheck()
                for row in rows:
                    check.add(row)
                async with snapshot(pool) as connection:
                    states = await connection.fetch(archive_checks.STATES, project_id, first, last)
                drift = list(check.drift(states))
                missing = sum(not drifted.stored for drifted in drift)
                for drifted in self._counted(len(states) + missing, drift):
                    yield drifted

    def _counted(self, runs: int, drift: Sequence[Drift]) -> Sequence[Drift]:
        self.runs += runs
        self.differ += len(drift)
        return drift


async def sample(ledger: Ledger, size: int) -> tuple[int, list[Drift]]:
    """Compare about `size` runs, half of them the newest; return how many, and the drift.

    A row without any events is found by the full check only. Raises AccessDenied.
    """
    await check_may_read(ledger.pool, ledger.project_id)
    (ends,) = await fetch(ledger.pool, _ENDS, ledger.project_id)
    if ends["first"] is None:
        return 0, []
    start = UUID(int=random.randint(ends["first"].int, ends["last"].int))  # noqa: S311  no secret
    half = max(size // 2, 1)
    picked = {
        row["run_id"] for row in await fetch(ledger.pool, _NEXT, ledger.project_id, start, half)
    }
    picked |= {row["run_id"] for row in await fetch(ledger.pool, _RECENT, ledger.project_id, half)}
    return len(picked), await compare(ledger, sorted(picked))


async def compare(ledger: Ledger, runs: Sequence[UUID]) -> list[Drift]:
    """Compare these runs, in one snapshot; return those that drifted."""
    async with snapshot(ledger.pool) as connection:
        return await drift_of_runs(connection, ledger.project_id, runs)
