"""What people do to a projection: pause it, resume it, try runs again, skip an event."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from runfold.ledger.errors import RunNotFound
from runfold.ledger.postgres.connections import Pool, fetch
from runfold.ledger.settings import Settings
from runfold.ledger.validation import (
    check_actor,
    check_int,
    check_run_id,
    check_text,
    order_reason,
)
from runfold.projections.declared.projection import IN_FORCE, Projection
from runfold.projections.declared.status import require
from runfold.projections.errors import NotStopped

_PAUSE: Final = """
UPDATE ledger.projection SET paused_at = coalesce(paused_at, clock_timestamp()) WHERE name = $1
RETURNING name
"""
NO_ERROR: Final = """failed_at = NULL, error = NULL, error_project_id = NULL, error_run_id = NULL,
  error_version = NULL, error_position = NULL"""
_RESUME: Final = f"""
UPDATE ledger.projection SET paused_at = NULL, {NO_ERROR} WHERE name = $1 RETURNING name
"""
_RETRY: Final = f"""
UPDATE ledger.projection_aside AS aside SET retry_at = clock_timestamp()
FROM ledger.projection AS projection
WHERE projection.name = $1
  AND aside.relation = {IN_FORCE}
  AND ($2::text IS NULL OR aside.project_id = $2) AND ($3::uuid IS NULL OR aside.run_id = $3)
RETURNING aside.run_id
"""
_SKIP: Final = f"""
WITH stopped AS (
  SELECT * FROM ledger.projection WHERE name = $1 AND failed_at IS NOT NULL FOR UPDATE
), cleared AS (
  UPDATE ledger.projection AS projection SET {NO_ERROR}
  FROM stopped WHERE projection.name = stopped.name
)
INSERT INTO ledger.projection_skip AS skip
  (name, version, position, project_id, run_id, event_version, error, actor, reason)
SELECT name, version, error_position, error_project_id, error_run_id, error_version, error, $2, $3
FROM stopped ON CONFLICT DO NOTHING RETURNING skip.run_id, skip.event_version
"""
# The run that was set aside first, at the event that could not be folded; a rebuild knows only the
# run.
_SKIP_ASIDE: Final = f"""
WITH first AS (
  SELECT aside.*, projection.version
  FROM ledger.projection_aside AS aside JOIN ledger.projection AS projection
    ON aside.relation = {IN_FORCE}
  WHERE projection.name = $1 AND aside.error IS NOT NULL AND aside.event_version IS NOT NULL
    AND aside.retry_at IS NULL
  ORDER BY aside.set_aside_at, aside.run_id LIMIT 1 FOR UPDATE OF aside
), again AS (
  UPDATE ledger.projection_aside AS aside SET retry_at = clock_timestamp() FROM first
  WHERE aside.relation = first.relation AND aside.project_id = first.project_id
    AND aside.run_id = first.run_id
)
INSERT INTO ledger.projection_skip AS skip
  (name, version, position, project_id, run_id, event_version, error, actor, reason)
SELECT name, version, first_position, project_id, run_id, event_version, error, $2, $3 FROM first
ON CONFLICT (name, version, position) DO UPDATE SET actor = skip.actor
RETURNING skip.run_id, skip.event_version
"""
_SKIP_EVENT: Final = """
WITH again AS (
  UPDATE ledger.projection_aside SET retry_at = clock_timestamp()
  WHERE relation = format('projection.%s_v%s', $1::text, $2::int) AND run_id = $5
)
INSERT INTO ledger.projection_skip AS skip
  (name, version, position, project_id, run_id, event_version, error, actor, reason)
SELECT $1, $2, event.position, event.project_id, event.run_id, event.version,
  'skipped before it was met', $3, $4
FROM ledger.event AS event WHERE event.run_id = $5 AND event.version = $6
ON CONFLICT (name, version, position) DO UPDATE SET actor = skip.actor
RETURNING skip.run_id, skip.event_version
"""


async def pause(pool: Pool, name: str) -> None:
    """Stop feeding the projection after the page in progress. Raises ProjectionNotFound."""
    await _changed(pool, name, _PAUSE)


async def resume(pool: Pool, name: str) -> int:
    """Resume the projection, and retry runs that are set aside; return how many.

    It goes on after a pause, or once more at the event where it stopped. Raises ProjectionNotFound.
    """
    await _changed(pool, name, _RESUME)
    return len(await fetch(pool, _RETRY, name, None, None))


async def retry(
    pool: Pool, name: str, *, project_id: str | None = None, run_id: UUID | str | None = None
) -> int:
    """Try runs again that are set aside: one run, those of a project, or all; return how many.

    The projector does so next. Raises ProjectionNotFound.
    """
    await require(pool, name)
    checked = None if run_id is None else check_run_id(run_id)
    return len(await fetch(pool, _RETRY, name, project_id, checked))


async def skip(pool: Pool, name: str, *, actor: str, reason: str) -> tuple[UUID, int]:
    """Skip the event at which the projection stopped, on record; return its run and version.

    One that did not stop skips the event for which it set a run aside first, and tries that run
    again. Raises NotStopped or ProjectionNotFound. A rebuild of the same version leaves the event
    out as well.
    """
    check_actor(actor)
    why = _kept(reason)
    for statement in (_SKIP, _SKIP_ASIDE):
        if rows := await fetch(pool, statement, name, actor, why):
            return rows[0]["run_id"], rows[0]["event_version"]
    await require(pool, name)
    raise NotStopped(name)


async def skip_event(
    pool: Pool, projection: Projection, run_id: UUID | str, version: int, *, actor: str, reason: str
) -> None:
    """Skip any event, on record, and try its run again; raises RunNotFound."""
    checked = check_run_id(run_id)
    check_int("version", version, least=1)
    check_actor(actor)
    why = _kept(reason)
    given = (projection.name, projection.version, actor, why, checked, version)
    if not await fetch(pool, _SKIP_EVENT, *given):
        raise RunNotFound(checked, "any project")


def _kept(reason: str) -> str | None:
    """Return a reason as the record keeps it: without secrets. Raises InvalidValue."""
    return order_reason(check_text("reason", reason, limit=1_000), Settings.load().redaction())


async def _changed(pool: Pool, name: str, statement: str) -> None:
    if not await fetch(pool, statement, name):
        await require(pool, name)
