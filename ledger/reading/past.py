"""Time travel: the fleet as it was at an instant, and what changed in a run between two points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from runfold.ledger.archive import reading as archive
from runfold.ledger.archive.record import detached
from runfold.ledger.errors import BeforeFirstEvent, FutureInstant, InvalidValue, UnknownVersion
from runfold.ledger.events import Event
from runfold.ledger.postgres.connections import Pool, fetch
from runfold.ledger.reading.history import history
from runfold.ledger.reading.permitted import RUN_RIGHTS, check_found
from runfold.ledger.reading.run_filter import RunFilter, floor
from runfold.ledger.reading.run_lists import page_ids
from runfold.ledger.reading.runs import get, require_kinds
from runfold.ledger.reading.search import MAX_RUNS, Page, listed
from runfold.ledger.reading.search_statements import EXAMINED
from runfold.ledger.run import Run
from runfold.ledger.validation import check_instant, check_int, check_run_id

MAX_FOLDED: Final = 1_000
"""Histories that one statement folds, so that no statement grows with the ledger."""

STATE_AT: Final = "SELECT * FROM ledger.state_at($1, $2, $3, $4)"
_BOUNDS: Final = """
SELECT ledger.now() AS now,
  (SELECT created_at FROM ledger.run_state WHERE project_id = $1 ORDER BY run_id LIMIT 1) AS first
"""
_FOLDED: Final = """
SELECT run.* FROM unnest($2::uuid[]) WITH ORDINALITY AS chosen (run_id, place)
CROSS JOIN LATERAL ledger.state_at($1, chosen.run_id, NULL, $3) AS run
WHERE ($4::text[] IS NULL OR run.state = ANY ($4))
  AND ($5::text[] IS NULL OR run.worker_id = ANY ($5))
ORDER BY chosen.place LIMIT $6
"""
_HASHES: Final = (
    "SELECT run_id, hash FROM ledger.run_state WHERE project_id = $1 AND run_id = ANY ($2::uuid[])"
)


@dataclass(frozen=True, slots=True)
class Diff:
    """A run at two points and the events between them: after `before`, up to `after`."""

    before: Run
    after: Run
    events: Sequence[Event]

    @property
    def changes(self) -> dict[str, tuple[Any, Any]]:
        """Every column that differs: its value before and after."""
        pairs = (
            (field.name, getattr(self.before, field.name), getattr(self.after, field.name))
            for field in fields(Run)
        )
        return {name: (old, new) for name, old, new in pairs if old != new}


async def _first_submission(pool: Pool, project_id: str, time: datetime) -> datetime | None:
    """Return when the project's first run was submitted, if any.

    Raises InvalidValue for a time without a zone, and FutureInstant by the database's clock.
    """
    check_instant("time", time)
    (row,) = await fetch(pool, _BOUNDS, project_id)
    if time > row["now"]:
        raise FutureInstant(time, row["now"])
    first: datetime | None = row["first"]
    return first


async def check_project_instant(pool: Pool, project_id: str, time: datetime) -> None:
    """Raise InvalidValue, FutureInstant or BeforeFirstEvent for a time without a state."""
    first = await _first_submission(pool, project_id, time)
    if first is not None and time < first:
        raise BeforeFirstEvent(project_id, time, first)


async def state_at(pool: Pool, project_id: str, run_id: UUID | str, at: int | datetime) -> Run:
    """Return the run as it was at a point of its history; see `Ledger.state_at`."""
    checked = check_run_id(run_id)
    version, time = await _point(pool, project_id, at)
    asked = (project_id, checked, version, time)
    runs = [Run.from_row(row) for row in await fetch(pool, STATE_AT, *asked)]
    now = None if runs else await get(pool, project_id, checked)
    if now is not None:
        last = {checked: now.hash}
        runs = await archive.states_at(pool, project_id, last, version=version, time=time)
        if not runs:  # a rebuild attached it meanwhile
            runs = [Run.from_row(row) for row in await fetch(pool, STATE_AT, *asked)]
    if not runs or (version is not None and runs[0].version != version):
        now = now or await get(pool, project_id, checked)
        raise UnknownVersion(checked, at, now.version)
    return runs[0]


async def diff(
    pool: Pool,
    project_id: str,
    run_id: UUID | str,
    start: int | datetime,
    end: int | datetime | None = None,
) -> Diff:
    """Return the run at two points and the events between them; see `Ledger.diff`."""
    checked = check_run_id(run_id)
    before = await state_at(pool, project_id, checked, start)
    if end is None:
        after = await get(pool, project_id, checked)
    else:
        after = await state_at(pool, project_id, checked, end)
    if after.version < before.version:
        raise InvalidValue(
            "end",
            str(end),
            f"is version {after.version}, before version {before.version} of the start",
        )
    count = after.version - before.version
    if not count:
        return Diff(before, after, [])
    events = await history(pool, project_id, checked, after=before.version, limit=count)
    return Diff(before, after, events)


async def _point(
    pool: Pool, project_id: str, at: int | datetime
) -> tuple[int | None, datetime | None]:
    if isinstance(at, datetime):
        await _first_submission(pool, project_id, at)
        return None, at
    if isinstance(at, bool) or not isinstance(at, int):
        raise InvalidValue("at", at, "must be a version, which is a number, or an aware datetime")
    return check_int("version", at, least=1), None


async def runs_at(
    pool: Pool, project_id: str, chosen: RunFilter, at: datetime | None, *, limit: int
) -> Page:
    """Return runs, newest first, as they are or were at an instant; see `Ledger.runs`.

    Histories are folded in parts until `limit` runs fit the filter or EXAMINED were folded. The
    first part begins with the ids of the instant, however many runs came later.
    """
    if at is None:
        return await listed(pool, project_id, chosen, limit=limit)
    check_int("limit", limit, least=1, most=MAX_RUNS)
    await require_kinds(pool, project_id, chosen.kinds)
    await check_project_instant(pool, project_id, at)
    part = min(limit + 1, MAX_FOLDED) if chosen.is_unchanging else MAX_FOLDED
    beyond = floor(at + timedelta(milliseconds=1), chosen.upper)
    rest = replace(chosen, states=None, worker_ids=None, upper=min(chosen.upper, beyond))
    runs: list[Run] = []
    onward, examined, looked = None, None, 0
    while len(runs) <= limit:
        rows = await fetch(pool, *page_ids(project_id, rest, part, at=at))
        ids = [row["run_id"] for row in rows]
        runs += await _folded(pool, project_id, ids, chosen, at, limit=limit + 1 - len(runs))
        looked += len(ids)
        if len(ids) < part:
            break
        if len(runs) <= limit and looked >= EXAMINED:
            onward, examined = ids[-1], looked
            break
        rest = replace(rest, **{"lower" if rest.is_forward else "upper": ids[-1]})
    if len(runs) > limit:
        runs = runs[:limit]
        onward = runs[-1].run_id
    await check_found(runs, pool, project_id, *RUN_RIGHTS)
    runs.sort(key=lambda run: run.run_id, reverse=True)
    return Page.beside(runs, chosen.cursor, onward, is_forward=chosen.is_forward, examined=examined)


async def _folded(
    pool: Pool,
    project_id: str,
    ids: list[UUID],
    chosen: RunFilter,
    at: datetime,
    *,
    limit: int,
) -> list[Run]:
    """Return those of the runs that fit the filter, as they were, in the order of the pages."""
    states, workers = chosen.states, chosen.worker_ids
    archived, before = await _archived(pool, project_id, ids), None
    while archived != before:  # a rebuild attaches months and detaches them again
        rows = await fetch(pool, _FOLDED, project_id, ids, at, states, workers, limit)
        runs = [Run.from_row(row) for row in rows]
        then = await archive.states_at(pool, project_id, archived, time=at) if archived else []
        archived, before = await _archived(pool, project_id, ids), archived
    runs += [
        run
        for run in then
        if (states is None or run.state in states) and (workers is None or run.worker_id in workers)
    ]
    runs.sort(key=lambda run: run.run_id, reverse=not chosen.is_forward)
    return runs[:limit]


async def _archived(pool: Pool, project_id: str, ids: list[UUID]) -> dict[UUID, bytes]:
    """Return those of the runs whose events are archived, with their last hash."""
    months = await detached(pool, min(ids), max(ids)) if ids else []
    inside = [
        run_id for run_id in ids if any(month.first <= run_id < month.beyond for month in months)
    ]
    rows = await fetch(pool, _HASHES, project_id, inside) if inside else []
    return {row["run_id"]: row["hash"] for row in rows}
