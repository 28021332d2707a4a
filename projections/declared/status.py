"""The projections' status, and the runs that they have set aside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from runfold.ledger.errors import CheckpointUnknown, FeedArchived
from runfold.ledger.postgres.connections import Pool, fetch
from runfold.ledger.reading import feed
from runfold.projections.declared.catch_up import checkpoint_of
from runfold.projections.declared.projection import IN_FORCE, Projection
from runfold.projections.errors import ProjectionNotFound, ProjectionUnseen

# Of the table that is in force, those with an error first.
_ASIDES: Final = f"""FROM ledger.projection_aside AS aside
  WHERE aside.relation = {IN_FORCE}"""
_ORDER: Final = "(aside.error IS NULL), aside.set_aside_at, aside.run_id"
_ROWS: Final = f"""
SELECT projection.*,
  (SELECT count(*) FROM ledger.projection_skip AS skip
   WHERE skip.name = projection.name AND skip.version = projection.version) AS skipped,
  (SELECT count(*) {_ASIDES}) AS set_aside,
  first.project_id AS aside_project_id, first.run_id AS aside_run_id,
  first.event_version AS aside_version, first.error AS aside_error,
  (SELECT sequence.last_value FROM ledger.event_position AS sequence) AS newest
FROM ledger.projection AS projection LEFT JOIN LATERAL (
  SELECT aside.* {_ASIDES} ORDER BY {_ORDER} LIMIT 1) AS first ON true
ORDER BY projection.name
"""
_NEWEST: Final = """
SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS newest,
  (SELECT ledger.projects_with('read', 'audit')) IS NULL AS sees
FROM ledger.event_position
"""
"""`sees`: what the policy of `ledger.projection` asks of a login."""
_UNFINISHED: Final = """
SELECT rebuild.projection, rebuild.started_at, counted.* FROM (
  SELECT DISTINCT ON (rebuild.projection) rebuild.* FROM ledger.rebuild AS rebuild
  WHERE rebuild.finished_at IS NULL AND rebuild.project_id IS NULL AND rebuild.until IS NULL
  ORDER BY rebuild.projection, rebuild.rebuild_id DESC) AS rebuild
CROSS JOIN LATERAL (
  SELECT count(*) AS ranges, count(range.done_at) AS done, max(range.done_at) AS moved_at
  FROM ledger.rebuild_range AS range WHERE range.rebuild_id = rebuild.rebuild_id) AS counted
ORDER BY rebuild.projection
"""
_ASIDE: Final = f"""
SELECT aside.project_id, aside.run_id, aside.event_version, aside.error, aside.events,
  aside.set_aside_at, aside.retry_at IS NOT NULL AS retrying
FROM ledger.projection AS projection CROSS JOIN LATERAL (
  SELECT aside.* {_ASIDES} ORDER BY {_ORDER} LIMIT $2) AS aside
WHERE projection.name = $1 ORDER BY {_ORDER}
"""


@dataclass(frozen=True, slots=True)
class Status:
    """One projection.

    `state` is new, current, behind, paused, failed, or replaced: the code declares another version;
    or unseen: the login has no right in all projects, whose progress it is.
    """

    name: str
    version: int
    state: str
    events: int = 0
    behind: int = 0
    """How many positions lie between the checkpoint and the newest event."""
    moved_at: datetime | None = None
    skipped: int = 0
    """How many events were skipped by somebody."""
    set_aside: int = 0
    """How many runs are not in the table, because they cannot be folded; see `set_aside`."""
    error: str | None = None
    project_id: str | None = None
    """With `run_id` and `event_version`: where it stopped, or what it set aside first."""
    run_id: UUID | None = None
    event_version: int | None = None


@dataclass(frozen=True, slots=True)
class RunAside:
    """A run that is left out of a projection's table from one of its events on."""

    project_id: str
    run_id: UUID
    event_version: int | None
    """The event that cannot be folded; None after a rebuild, which knows only the run."""
    error: str | None
    """None for a run that was set aside with its project, which has too many others."""
    events: int
    set_aside_at: datetime
    retrying: bool
    """Whether it is tried again as soon as somebody runs the projection."""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A rebuild that somebody began and that is not finished: at work, or to be resumed."""

    projection: str
    started_at: datetime
    ranges: int
    done: int
    moved_at: datetime | None
    """When a range was last done."""


async def unfinished(pool: Pool) -> list[Unfinished]:
    """Return the newest unfinished rebuild of each projection, whoever began it and where."""
    return [Unfinished(**row) for row in await fetch(pool, _UNFINISHED)]


async def statuses(pool: Pool, declared: Mapping[str, Projection]) -> list[Status]:
    """Return the status of every projection that is declared or installed, by name.

    Raises FeedMoved or FeedOnStandby.
    """
    rows = {row["name"]: row for row in await fetch(pool, _ROWS)}
    all_statuses = [await _status(pool, row, declared.get(name)) for name, row in rows.items()]
    if new := [projection for name, projection in declared.items() if name not in rows]:
        [newest] = await fetch(pool, _NEWEST)
        state, behind = ("new", newest["newest"]) if newest["sees"] else ("unseen", 0)
        all_statuses += [
            Status(declared.name, declared.version, state, behind=behind) for declared in new
        ]
    return sorted(all_statuses, key=lambda status: status.name)


async def _status(pool: Pool, row: Mapping[str, Any], declared: Projection | None) -> Status:
    seen, error, is_lost = 0, row["error"], False
    try:
        checkpoint = checkpoint_of(row)
        seen = checkpoint.seen_position
        behind = max(row["newest"] - seen, 1) if await feed.towards(pool, checkpoint, 1) else 0
    except (FeedArchived, CheckpointUnknown) as missed:
        behind, is_lost = max(row["newest"] - seen, 1), True
        error = error or _lost(row["name"], missed)
    state = "behind" if behind else "current"
    if declared is not None and (declared.version, declared.digest) != (
        row["version"],
        row["digest"],
    ):
        state = "replaced"
    elif row["failed_at"] is not None or is_lost:
        state = "failed"
    elif row["paused_at"] is not None:
        state = "paused"
    place = (row["error_project_id"], row["error_run_id"], row["error_version"])
    if error is None and row["set_aside"]:
        place = (row["aside_project_id"], row["aside_run_id"], row["aside_version"])
        error = row["aside_error"]
    counts = (row["events"], behind, row["moved_at"], row["skipped"], row["set_aside"])
    return Status(row["name"], row["version"], state, *counts, error, *place)


def _lost(name: str, reason: Exception) -> str:
    return f"{reason}. `runfold projections rebuild {name}` puts it right"


async def set_aside(pool: Pool, name: str, *, limit: int = 100) -> list[RunAside]:
    """Return runs that the projection cannot fold, in the order they were set aside."""
    return [RunAside(**row) for row in await fetch(pool, _ASIDE, name, limit)]


async def require(pool: Pool, name: str) -> None:
    """Raise ProjectionNotFound unless it is installed, ProjectionUnseen if nobody can tell."""
    known = [
        row["name"] for row in await fetch(pool, "SELECT name FROM ledger.projection ORDER BY name")
    ]
    if name not in known:
        [newest] = await fetch(pool, _NEWEST)
        if not newest["sees"]:
            raise ProjectionUnseen(name)
        raise ProjectionNotFound(name, known)
