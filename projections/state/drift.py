"""Drift: where run_state is not the fold of the events, column by column.

Every comparison is one statement and so one snapshot: writers go on, and nothing they do looks like
drift.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from uuid import UUID

from runfold.ledger import Ledger
from runfold.ledger.archive import reading as archive
from runfold.ledger.archive.checking import DRIFT
from runfold.ledger.archive.record import detached
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.reading.verify import differences

Progress: TypeAlias = Callable[[int, int | None], None]


EVENTS_A_RANGE: Final = 20_000
_LAST: Final = UUID(int=2**128 - 1)

_BOUND: Final = """
SELECT e.run_id FROM ledger.event AS e WHERE e.project_id = $1 AND e.run_id >= $2
ORDER BY e.run_id, e.version OFFSET $3 LIMIT 1
"""
_RANGE: Final = "SELECT * FROM ledger.drift_run_state($1, $2, $3)"
_RUNS_OF_RANGE: Final = """
SELECT count(*) AS runs FROM ledger.run_state AS r
WHERE r.project_id = $1 AND r.run_id BETWEEN $2 AND $3 AND NOT EXISTS (
  SELECT FROM ledger.archive AS a WHERE a.detached AND r.run_id >= a.first AND r.run_id < a.beyond)
"""
_ARCHIVED_RUNS: Final = """
SELECT count(*) AS runs FROM ledger.run_state WHERE project_id = $1 AND run_id BETWEEN $2 AND $3
"""
OF_RUNS: Final = """
SELECT d.* FROM unnest($2::uuid[]) AS c (run_id)
CROSS JOIN LATERAL ledger.drift_run_state($1, c.run_id, c.run_id) AS d
"""
_ENDS: Final = """
SELECT (SELECT run_id FROM ledger.event WHERE project_id = $1 ORDER BY run_id LIMIT 1) AS first,
  (SELECT run_id FROM ledger.event WHERE project_id = $1 ORDER BY run_id DESC LIMIT 1) AS last
"""
_NEXT: Final = """
SELECT DISTINCT run_id FROM ledger.event WHERE project_id = $1 AND run_id >= $2
ORDER BY run_id LIMIT $3
"""
# The index of the feed leads to what was written last, in any project.
_RECENT: Final = """
SELECT DISTINCT e.run_id FROM (
  SELECT project_id, run_id FROM ledger.event ORDER BY txid DESC, position DESC LIMIT $2
) AS e WHERE e.project_id = $1
"""


@dataclass(frozen=True, slots=True)
class Drift:
    """A run whose row is not the fold of its events.

    `columns` has what differs: its name, what the events say, what is stored. A row that is missing
    has `stored` False and differs in every column; a row without any events has `expected` False.
    """

    run_id: UUID
    columns: Mapping[str, tuple[Any, Any]]
    expected: bool = True
    stored: bool = True

    def __str__(self) -> str:
        if not self.stored:
            return "run_state has no row"
        if not self.expected:
            return "the run has no events"
        return "; ".join(
            f"{name} is {have!r}, its events say {want!r}"
            for name, (want, have) in self.columns.items()
        )


def check(ledger: Ledger, progress: Progress | None = None) -> Comparison:
    """Return the comparison of every run of the project, which is made while it is iterated over.

    `progress` is called with the number of events done, and None: their total is not known.
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
        """Compare, and yield each run that drifted."""
        pool, project_id = self._ledger.pool, self._ledger.project_id
        first, done = UUID(int=0), 0
        while True:
            bound = await fetch(pool, _BOUND, project_id, first, EVENTS_A_RANGE)
            last = bound[0]["run_id"] if bound else _LAST
            for drift in await self._compared(_RANGE, first, last):
                yield drift
            if not bound or last == _LAST:
                break
            first, done = UUID(int=last.int + 1), done + EVENTS_A_RANGE
            if self._progress is not None:
                self._progress(done, None)
        for month in await detached(pool):
            async for start, end, rows in archive.whole_runs(month, project_id):
                for drift in await self._compared(
                    DRIFT, start, end, archive.as_json(rows), within=(start, end)
                ):
                    yield drift

    async def _compared(
        self, statement: str, *arguments: Any, within: tuple[UUID, UUID] | None = None
    ) -> list[Drift]:
        pool, project_id = self._ledger.pool, self._ledger.project_id
        drifted = [drift_of(row) for row in await fetch(pool, statement, project_id, *arguments)]
        counted = _ARCHIVED_RUNS if within else _RUNS_OF_RANGE
        [row] = await fetch(pool, counted, project_id, *(within or arguments))
        self.runs += row["runs"] + sum(not drift.stored for drift in drifted)
        self.differ += len(drifted)
        return drifted


async def sample(ledger: Ledger, size: int) -> tuple[int, list[Drift]]:
    """Compare about `size` runs, half of them the newest; return how many, and the drift.

    A row without any events is found by the full check only.
    """
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
    return [drift_of(row) for row in await fetch(ledger.pool, OF_RUNS, ledger.project_id, runs)]


def drift_of(row: Mapping[str, Any]) -> Drift:
    """Return the drift that a row of a comparison names."""
    found = differences(row["want"], row["have"])
    return Drift(
        row["run_id"], found, expected=row["want"] is not None, stored=row["have"] is not None
    )
