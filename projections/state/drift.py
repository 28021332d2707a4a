"""Drift: where run_state is not the fold of the events, column by column, and its repair.

Every comparison is one statement and so one snapshot: writers go on, and nothing they do looks like
drift.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from uuid import UUID

import asyncpg

from runfold.ledger import Ledger, log, names
from runfold.ledger.archive import reading as archive
from runfold.ledger.errors import LedgerError
from runfold.ledger.events import NoteAdded
from runfold.ledger.operations.append import APPEND, append_row
from runfold.ledger.operations.columns import columns
from runfold.ledger.postgres.connections import FAILURES, fetch
from runfold.ledger.postgres.errors import translated
from runfold.ledger.reading.verify import differences
from runfold.ledger.validation import check_actor, check_text
from runfold.projections.state.run_state import COLUMNS, KEY

Connection: TypeAlias = "asyncpg.Connection[Any] | asyncpg.pool.PoolConnectionProxy[Any]"
Progress: TypeAlias = Callable[[int, int | None], None]

REPAIRED: Final = "run_state.repaired"
"""The name of the note that a repair leaves on the run."""

EVENTS_A_RANGE: Final = 20_000
_LAST: Final = UUID(int=2**128 - 1)
_NOTE_BYTES: Final = 16_384

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
_RUNS: Final = """
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
_LOCK: Final = """
SELECT FROM ledger.run_state WHERE project_id = $1 AND run_id = ANY ($2::uuid[])
ORDER BY run_id FOR UPDATE
"""
_NAMES: Final = ", ".join((*KEY, *COLUMNS))
_REPLACE: Final = f"""
INSERT INTO ledger.run_state ({_NAMES})
SELECT {", ".join(f"r.{name}" for name in (*KEY, *COLUMNS))}
FROM unnest($2::uuid[]) AS c (run_id)
CROSS JOIN LATERAL ledger.rebuild_run_state($1, c.run_id, c.run_id) AS r
ON CONFLICT ({", ".join(KEY)}) DO UPDATE
SET {", ".join(f"{name} = EXCLUDED.{name}" for name in COLUMNS)}
"""
_REMOVE: Final = "DELETE FROM ledger.run_state WHERE project_id = $1 AND run_id = ANY ($2::uuid[])"


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
        for month in await archive.detached(pool):
            async for start, end, rows in archive.whole_runs(month, project_id):
                for drift in await self._compared(
                    archive.DRIFT, start, end, archive.as_json(rows), within=(start, end)
                ):
                    yield drift

    async def _compared(
        self, statement: str, *arguments: Any, within: tuple[UUID, UUID] | None = None
    ) -> list[Drift]:
        pool, project_id = self._ledger.pool, self._ledger.project_id
        drifted = [_drift(row) for row in await fetch(pool, statement, project_id, *arguments)]
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
    return [_drift(row) for row in await fetch(ledger.pool, _RUNS, ledger.project_id, runs)]


async def repair(ledger: Ledger, runs: Sequence[UUID], *, actor: str, reason: str) -> list[Drift]:
    """Make these rows the fold of their events again, in one transaction; return what was wrong.

    Each repaired run gets a note `run_state.repaired` that says what was stored, by whom it was
    repaired and why. A row without any events is removed and logged: there is no run to note it on.
    It takes the owner of the schema; raises AccessDenied, InvalidValue.
    """
    check_actor(actor)
    check_text("reason", reason, limit=1_000)
    try:
        async with ledger.pool.acquire() as connection, connection.transaction():
            return await repair_on(connection, ledger.project_id, runs, actor=actor, reason=reason)
    except (*FAILURES, OSError) as error:
        raise translated(error, (ledger.project_id,)) from error


async def repair_on(
    connection: Connection, project_id: str, runs: Sequence[UUID], *, actor: str, reason: str
) -> list[Drift]:
    """Repair within an open transaction of the driver."""
    # No month is detached meanwhile, whose runs would seem to have no events.
    await connection.execute("LOCK TABLE ledger.event IN ACCESS SHARE MODE")
    # One repair at a time: two that insert the same missing row would not see each other's notes.
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('ledger.repair', 0))")
    await connection.execute(_LOCK, project_id, runs)
    drifted = [_drift(row) for row in await connection.fetch(_RUNS, project_id, runs)]
    phantoms = [drift.run_id for drift in drifted if not drift.expected]
    found = [drift for drift in drifted if drift.expected]
    await connection.execute(_REMOVE, project_id, phantoms)
    for run_id in phantoms:
        log.logger(project_id=project_id, run_id=str(run_id)).warning(
            names.PHANTOM_REMOVED, actor=actor, reason=reason
        )
    if found:
        await connection.execute(_REPLACE, project_id, [drift.run_id for drift in found])
        notes = [append_row(drift.run_id, _note(drift, reason), _NOTE_BYTES * 2) for drift in found]
        noted = await connection.fetch(APPEND, project_id, actor, *columns(notes))
        if len(noted) != len(found):
            raise LedgerError(
                f"only {len(noted)} of {len(found)} repairs could be recorded; nothing was repaired"
            )
    return drifted


def _note(drift: Drift, reason: str) -> NoteAdded:
    text = f"{drift}"
    return NoteAdded(
        name=REPAIRED,
        text=f"{reason}: {text if len(text) <= _NOTE_BYTES else text[:_NOTE_BYTES] + ' ...'}",
    )


def _drift(row: Mapping[str, Any]) -> Drift:
    found = differences(row["want"], row["have"])
    return Drift(
        row["run_id"], found, expected=row["want"] is not None, stored=row["have"] is not None
    )
