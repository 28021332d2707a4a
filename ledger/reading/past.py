"""Time travel: the fleet as it was at an instant, and what changed in a run between two points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from runfold.ledger.archive import reading as archive
from runfold.ledger.errors import BeforeFirstEvent, FutureInstant, InvalidValue
from runfold.ledger.events import Event
from runfold.ledger.postgres.connections import Pool, fetch
from runfold.ledger.run import Run

if TYPE_CHECKING:
    from sqlalchemy import Select

MAX_FOLDED: Final = 1_000
"""Histories that one statement folds, so that no statement grows with the ledger."""

_BOUNDS: Final = """
SELECT ledger.now() AS now,
  (SELECT created_at FROM ledger.run_state WHERE project_id = $1 ORDER BY run_id LIMIT 1) AS first
"""
_FOLDED: Final = """
SELECT r.* FROM unnest($2::uuid[]) WITH ORDINALITY AS c (run_id, place)
CROSS JOIN LATERAL ledger.state_at($1, c.run_id, NULL, $3) AS r
WHERE ($4::text[] IS NULL OR r.state = ANY ($4)) AND ($5::text IS NULL OR r.worker_id = $5)
ORDER BY c.place LIMIT $6
"""
_HASHES: Final = (
    "SELECT run_id, hash FROM ledger.run_state WHERE project_id = $1 AND run_id = ANY ($2::uuid[])"
)


@dataclass(frozen=True, slots=True)
class Diff:
    """A run at two points and the events between them: after `before`, up to and including `after`."""

    before: Run
    after: Run
    events: Sequence[Event]

    @property
    def changes(self) -> dict[str, tuple[Any, Any]]:
        """Give every column that differs: its value before and after."""
        pairs = (
            (field.name, getattr(self.before, field.name), getattr(self.after, field.name))
            for field in fields(Run)
        )
        return {name: (old, new) for name, old, new in pairs if old != new}


async def check_instant(pool: Pool, project_id: str, time: datetime) -> datetime | None:
    """Give when the project's first run was submitted, if any; raise unless `time` has a zone and is not in the future.

    The database's clock decides. Raises InvalidValue or FutureInstant.
    """
    if not isinstance(time, datetime):
        raise InvalidValue("time", time, "must be a datetime")
    if time.tzinfo is None:
        raise InvalidValue("time", time.isoformat(), "has no time zone: use an aware datetime")
    (row,) = await fetch(pool, _BOUNDS, project_id)
    if time > row["now"]:
        raise FutureInstant(time, row["now"])
    first: datetime | None = row["first"]
    return first


async def check_project_instant(pool: Pool, project_id: str, time: datetime) -> None:
    """Raise as `check_instant` does, and BeforeFirstEvent for a time before the project's first run."""
    first = await check_instant(pool, project_id, time)
    if first is not None and time < first:
        raise BeforeFirstEvent(project_id, time, first)


async def runs_at(
    pool: Pool,
    project_id: str,
    candidates: Select[Any],
    time: datetime,
    *,
    states: list[str] | None,
    worker_id: str | None,
    limit: int,
) -> list[Run]:
    """Give the runs as they were, newest first: the fold of what was recorded up to `time`, filtered afterwards.

    `candidates` selects ids of `run_state` by what never changes in a run; histories are folded page by page until
    `limit` runs fit, so a rare state or worker costs time but never memory. Raises BeforeFirstEvent or FutureInstant.
    """
    from runfold.ledger.postgres.tables import run_state

    await check_project_instant(pool, project_id, time)
    page = min(limit, MAX_FOLDED) if states is None and worker_id is None else MAX_FOLDED
    submitted = (
        candidates.where(run_state.c.created_at <= time)
        .order_by(run_state.c.run_id.desc())
        .limit(page)
    )
    found: list[Run] = []
    query = submitted
    while len(found) < limit:
        ids = [row["run_id"] for row in await fetch(pool, *compiled(query))]
        rows = await fetch(
            pool, _FOLDED, project_id, ids, time, states, worker_id, limit - len(found)
        )
        these = [Run.from_row(row) for row in rows]
        archived = await _archived(pool, project_id, ids)
        then = await archive.states_at(pool, project_id, archived, time=time) if archived else []
        these += [
            run
            for run in then
            if (states is None or run.state in states) and worker_id in {None, run.worker_id}
        ]
        found += sorted(these, key=lambda run: run.run_id, reverse=True)[: limit - len(found)]
        if len(ids) < page:
            break
        query = submitted.where(run_state.c.run_id < ids[-1])
    return found


async def _archived(pool: Pool, project_id: str, ids: list[UUID]) -> dict[UUID, bytes]:
    """Give those of these runs whose events are archived, with the hash of the last."""
    months = await archive.detached(pool, min(ids), max(ids)) if ids else []
    inside = [
        run_id for run_id in ids if any(month.first <= run_id < month.beyond for month in months)
    ]
    rows = await fetch(pool, _HASHES, project_id, inside) if inside else []
    return {row["run_id"]: row["hash"] for row in rows}


def compiled(query: Select[Any]) -> tuple[Any, ...]:
    """Write a query as the driver takes it: the statement and its bound parameters."""
    from sqlalchemy.dialects.postgresql import asyncpg

    dialect = asyncpg.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's own gap
    done = query.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
    return (str(done), *(done.params[name] for name in done.positiontup or ()))
