"""The projections' status, and what people do to them: pause, resume, skip an event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from runfold.ledger.errors import FeedArchived, RunNotFound
from runfold.ledger.postgres.connections import Pool, fetch
from runfold.ledger.reading import feed
from runfold.ledger.validation import check_actor, check_int, check_run_id, check_text
from runfold.projections.declared.catch_up import checkpoint_of
from runfold.projections.declared.projection import Projection
from runfold.projections.errors import NotStopped, ProjectionNotFound

_ROWS: Final = """
SELECT p.*, (SELECT count(*) FROM ledger.projection_skip AS s WHERE s.name = p.name AND s.version = p.version) AS skipped,
  (SELECT q.last_value FROM ledger.event_position AS q) AS newest
FROM ledger.projection AS p ORDER BY p.name
"""
_PAUSE: Final = "UPDATE ledger.projection SET paused_at = coalesce(paused_at, clock_timestamp()) WHERE name = $1 RETURNING name"
_NO_ERROR: Final = """failed_at = NULL, error = NULL, error_project_id = NULL, error_run_id = NULL, error_version = NULL,
  error_position = NULL"""
_RESUME: Final = (
    f"UPDATE ledger.projection SET paused_at = NULL, {_NO_ERROR} WHERE name = $1 RETURNING name"
)
_SKIP: Final = f"""
WITH stopped AS (SELECT * FROM ledger.projection WHERE name = $1 AND failed_at IS NOT NULL FOR UPDATE),
cleared AS (UPDATE ledger.projection AS p SET {_NO_ERROR} FROM stopped WHERE p.name = stopped.name)
INSERT INTO ledger.projection_skip AS k (name, version, position, project_id, run_id, event_version, error, actor, reason)
SELECT name, version, error_position, error_project_id, error_run_id, error_version, error, $2, $3 FROM stopped
ON CONFLICT DO NOTHING RETURNING k.run_id, k.event_version
"""
_SKIP_EVENT: Final = """
INSERT INTO ledger.projection_skip AS k (name, version, position, project_id, run_id, event_version, error, actor, reason)
SELECT $1, $2, e.position, e.project_id, e.run_id, e.version, 'skipped before it was met', $3, $4
FROM ledger.event AS e WHERE e.run_id = $5 AND e.version = $6
ON CONFLICT (name, version, position) DO UPDATE SET actor = k.actor RETURNING k.run_id, k.event_version
"""


@dataclass(frozen=True, slots=True)
class Status:
    """One projection: `state` is new, current, behind, paused, failed or replaced (the code declares another version)."""

    name: str
    version: int
    state: str
    events: int = 0
    behind: int = 0
    """How many events and gaps lie between the checkpoint and the newest event."""
    moved_at: datetime | None = None
    skipped: int = 0
    error: str | None = None
    project_id: str | None = None
    """With `run_id` and `event_version`: the event at which it stopped."""
    run_id: UUID | None = None
    event_version: int | None = None


async def statuses(pool: Pool, declared: Mapping[str, Projection]) -> list[Status]:
    """Return the status of every projection that is declared or installed, by name.

    Raises FeedMoved or FeedOnStandby.
    """
    rows = {row["name"]: row for row in await fetch(pool, _ROWS)}
    found = [await _status(pool, row, declared.get(name)) for name, row in rows.items()]
    found += [
        Status(one.name, one.version, "new") for name, one in declared.items() if name not in rows
    ]
    return sorted(found, key=lambda status: status.name)


async def _status(pool: Pool, row: Mapping[str, Any], declared: Projection | None) -> Status:
    checkpoint = checkpoint_of(row)
    seen = checkpoint.seen_position
    error = row["error"]
    try:
        behind = max(row["newest"] - seen, 1) if await feed.towards(pool, checkpoint, 1) else 0
    except FeedArchived as missed:
        behind, error = max(row["newest"] - seen, 1), error or str(missed)
    state = "behind" if behind else "current"
    if declared is not None and (declared.version, declared.digest) != (
        row["version"],
        row["digest"],
    ):
        state = "replaced"
    elif row["failed_at"] is not None:
        state = "failed"
    elif row["paused_at"] is not None:
        state = "paused"
    return Status(
        row["name"], row["version"], state, row["events"], behind, row["moved_at"], row["skipped"],
        error, row["error_project_id"], row["error_run_id"], row["error_version"],
    )  # fmt: skip


async def pause(pool: Pool, name: str) -> None:
    """Stop feeding the projection after the page in progress. Raises ProjectionNotFound."""
    await _changed(pool, name, _PAUSE)


async def resume(pool: Pool, name: str) -> None:
    """Let the projection go on: after a pause, or once more at the event where it stopped. Raises ProjectionNotFound."""
    await _changed(pool, name, _RESUME)


async def skip(pool: Pool, name: str, *, actor: str, reason: str) -> tuple[UUID, int]:
    """Skip the event at which the projection stopped, on record; return its run and version.

    Raises NotStopped or ProjectionNotFound. A rebuild of the same version leaves it out as well.
    """
    check_actor(actor)
    check_text("reason", reason, limit=1_000)
    rows = await fetch(pool, _SKIP, name, actor, reason)
    if not rows:
        await _require(pool, name)
        raise NotStopped(name)
    return rows[0]["run_id"], rows[0]["event_version"]


async def skip_event(
    pool: Pool, projection: Projection, run_id: UUID | str, version: int, *, actor: str, reason: str
) -> None:
    """Leave out an event that a rebuild could not fold, on record. Raises RunNotFound when there is no such event."""
    wanted = check_run_id(run_id)
    check_int("version", version, least=1)
    check_actor(actor)
    check_text("reason", reason, limit=1_000)
    if not await fetch(
        pool, _SKIP_EVENT, projection.name, projection.version, actor, reason, wanted, version
    ):
        raise RunNotFound(wanted, "any project")


async def _changed(pool: Pool, name: str, statement: str) -> None:
    if not await fetch(pool, statement, name):
        await _require(pool, name)


async def _require(pool: Pool, name: str) -> None:
    known = [
        row["name"] for row in await fetch(pool, "SELECT name FROM ledger.projection ORDER BY name")
    ]
    if name not in known:
        raise ProjectionNotFound(name, known)
