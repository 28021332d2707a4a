"""Schedules: which runs are submitted when, by the duty in `runfold.workers.duties.scheduler`.

See docs/decisions/0024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from runfold.ledger.commands import Submit
from runfold.ledger.cron import check_cron, latest_due, next_due
from runfold.ledger.errors import DuplicateKey, InvalidValue, ScheduleNotFound
from runfold.ledger.kinds import known_kind
from runfold.ledger.operations.columns import columns
from runfold.ledger.operations.project import Project
from runfold.ledger.payload import decode_payload, encode_payload, payload_member
from runfold.ledger.postgres.clock import ledger_now
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.reading.permitted import check_found
from runfold.ledger.run import Run
from runfold.ledger.validation import check_text, check_trimmed

MAX_NAME: Final = 150
BATCH: Final = 100
ORPHAN_SECONDS: Final = 60.0
"""How late a declared schedule is before no process is taken to have its handler."""

_COLUMNS: Final = f"""
name, kind, input, cron, timezone, next_at, last_due, actor, release, updated_at,
  paused AS is_paused, reason, NOT paused AND release IS NOT NULL
    AND next_at < ledger.now() - interval '{ORPHAN_SECONDS} s' AS is_orphan
"""
_PUT: Final = "SELECT ledger.put_schedule($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
_CHANGE: Final = "SELECT ledger.change_schedule($1, $2, $3, $4, $5, $6) AS found"
_DROP: Final = "SELECT ledger.drop_schedule($1, $2, $3) AS dropped"
_ADVANCE: Final = "SELECT ledger.advance_schedule($1, $2, $3, $4, $5, $6)"
# In one statement: a schedule that was changed or paused since it was read submits nothing.
_SUBMIT_DUE: Final = """
SELECT FROM ledger.advance_schedule($1, $12, $13, $14, $15, $16) AS moved (is_moved)
CROSS JOIN LATERAL ledger.submit(
  CASE WHEN moved.is_moved THEN $1 END, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) AS made
WHERE moved.is_moved
"""
# In one statement, too: an order is on record if it made its run.
_RUN_NOW: Final = """
SELECT made.* FROM ledger.change_schedule($1, $12, $13, 'run', NULL, $14) AS known (is_found)
CROSS JOIN LATERAL ledger.submit(
  CASE WHEN known.is_found THEN $1 END, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) AS submitted
CROSS JOIN LATERAL ledger.read_run($1, submitted.run_id) AS made
WHERE known.is_found
"""
_ALL: Final = f"SELECT {_COLUMNS} FROM ledger.schedule WHERE project_id = $1 ORDER BY name"
_ONE: Final = f"SELECT {_COLUMNS} FROM ledger.schedule WHERE project_id = $1 AND name = $2"
_IN_FORCE: Final = "NOT paused AND (release IS NULL OR name = ANY ($2::text[]))"
_DUE: Final = f"""
SELECT {_COLUMNS} FROM ledger.schedule
WHERE project_id = $1 AND {_IN_FORCE} AND next_at <= $3 ORDER BY next_at, name LIMIT $4
"""
_SOONEST: Final = f"""
SELECT min(next_at) AS next_at FROM ledger.schedule WHERE project_id = $1 AND {_IN_FORCE}
"""
# The instant is a subquery, because no index is searched for a volatile value.
_ORPHANS: Final = f"""
SELECT {_COLUMNS} FROM ledger.schedule
WHERE project_id = $1 AND NOT paused AND release IS NOT NULL AND NOT name = ANY ($2::text[])
  AND next_at < (SELECT ledger.now() - make_interval(secs => $3))
ORDER BY next_at, name LIMIT $4
"""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A run of `kind` is submitted whenever `cron` is due in `timezone`.

    `last_due` is the due time of the last run that was submitted. `release` is the age of the code
    whose handler declares it; None: a person made it, or was the last to change it.
    """

    name: str
    kind: str
    input: Any
    cron: str
    timezone: str
    next_at: datetime
    last_due: datetime | None
    actor: str
    release: datetime | None
    updated_at: datetime
    """When it was made, or declared or made again."""
    is_paused: bool
    """A person paused it, until it is resumed."""
    reason: str | None
    """Why it was paused, or resumed; None after any other change."""
    is_orphan: bool
    """A handler declared it, and no running worker has that handler."""


async def put(
    project: Project,
    name: str,
    kind: str,
    input_: Any,
    *,
    cron: str,
    timezone: str,
    actor: str | None,
    ahead: bool = False,
) -> Schedule:
    """Make a schedule or change the one of this name; see `Ledger.schedule`."""
    check_text("name", name, limit=MAX_NAME)
    check_trimmed("kind", kind)
    who = project.actor_or_default(actor)
    body = encode_payload({"input": input_}, project.rules)
    due = await _first_due(project, cron, timezone)
    facts = (who, name, kind, body, cron, timezone, due, None, ahead)
    async with known_kind(project.pool, project.project_id):
        await fetch(project.pool, _PUT, project.project_id, *facts)
    return await _named(project, name)


async def declare(
    project: Project, kind: str, *, cron: str, timezone: str, release: datetime
) -> Schedule | None:
    """Make or change the schedule of a handler's kind, unless a newer release or change has.

    A release from the future counts as of now. Returns the schedule that is in force; None when it
    was removed meanwhile.
    """
    body = encode_payload({"input": None}, project.rules)
    due = await _first_due(project, cron, timezone)
    who = project.actor_or_default(None)
    facts = (who, kind, kind, body, cron, timezone, due, release, False)
    await fetch(project.pool, _PUT, project.project_id, *facts)
    rows = await fetch(project.pool, _ONE, project.project_id, kind)
    return _schedule(rows[0]) if rows else None


async def _first_due(project: Project, cron: str, timezone: str) -> datetime:
    check_cron(cron, timezone)
    present = await ledger_now(project.pool)
    return next_due(cron, timezone, present)


async def pause(project: Project, name: str, *, reason: str, actor: str | None = None) -> Schedule:
    """Have a schedule submit nothing until it is resumed; see `Ledger.pause_schedule`."""
    await _change(project, name, "pause", None, reason=reason, actor=actor)
    return await _named(project, name)


async def resume(project: Project, name: str, *, reason: str, actor: str | None = None) -> Schedule:
    """Have a paused schedule go on from its next due time; see `Ledger.resume_schedule`."""
    known = await _named(project, name)
    due = await _first_due(project, known.cron, known.timezone)
    await _change(project, name, "resume", due, reason=reason, actor=actor)
    return await _named(project, name)


async def run_now(project: Project, name: str, *, reason: str, actor: str | None) -> Run:
    """Submit a schedule's run beside its due times; see `Ledger.run_schedule`."""
    why = _order_reason(project, reason)
    known = await _named(project, name)
    present = await ledger_now(project.pool)
    key = f"schedule:{name}:now:{present:%Y-%m-%dT%H:%M:%SZ}"
    command = Submit(kind=known.kind, input=known.input, key=key).row(project.rules)
    asked = (project.project_id, project.actor_or_default(None), *columns([command]))
    order = (project.actor_or_default(actor), known.name, why)
    runs = await fetch(project.pool, _RUN_NOW, *asked, *order)
    if not runs:
        raise await _not_found(project, name)
    project.waker.wake()
    return Run.from_row(runs[0])


async def _change(
    project: Project,
    name: str,
    change: str,
    due: datetime | None,
    *,
    reason: str,
    actor: str | None,
) -> None:
    checked = check_text("name", name, limit=MAX_NAME)
    why = _order_reason(project, reason)
    values = (project.actor_or_default(actor), checked, change, due, why)
    [row] = await fetch(project.pool, _CHANGE, project.project_id, *values)
    if not row["found"]:
        raise await _not_found(project, name)


def _order_reason(project: Project, reason: str) -> str | None:
    why = project.order_reason(reason)
    if not reason or not reason.strip():
        raise InvalidValue("reason", reason, "is needed: it is kept in the control history")
    return why


async def _named(project: Project, name: str) -> Schedule:
    checked = check_text("name", name, limit=MAX_NAME)
    rows = await fetch(project.pool, _ONE, project.project_id, checked)
    if not rows:
        raise await _not_found(project, name)
    return _schedule(rows[0])


async def _not_found(project: Project, name: str) -> ScheduleNotFound:
    return ScheduleNotFound(name, [each.name for each in await schedules(project)])


async def drop(project: Project, name: str) -> bool:
    """Remove a schedule; see `Ledger.unschedule`."""
    checked = check_text("name", name, limit=MAX_NAME)
    who = project.actor_or_default(None)
    [row] = await fetch(project.pool, _DROP, project.project_id, who, checked)
    return bool(row["dropped"])


async def schedules(project: Project) -> list[Schedule]:
    """Return every schedule; see `Ledger.schedules`."""
    rows = await fetch(project.pool, _ALL, project.project_id)
    await check_found(rows, project.pool, project.project_id, "read", "schedule", "audit")
    return [_schedule(row) for row in rows]


async def due(project: Project, declared: Sequence[str]) -> tuple[list[Schedule], datetime]:
    """Return the schedules that are due, most overdue first, at most 100; and the ledger's time.

    Of the schedules that handlers declare only those named in `declared`.
    """
    present = await ledger_now(project.pool)
    rows = await fetch(project.pool, _DUE, project.project_id, declared, present, BATCH)
    return [_schedule(row) for row in rows], present


async def orphans(project: Project, declared: Sequence[str]) -> list[Schedule]:
    """Return the schedules of handlers that no process has: late ones, not named in `declared`."""
    rows = await fetch(project.pool, _ORPHANS, project.project_id, declared, ORPHAN_SECONDS, BATCH)
    return [_schedule(row) for row in rows]


async def submit_due(project: Project, schedule: Schedule, now: datetime) -> None:
    """Submit the run of a schedule's latest due time, and move the schedule on, in one statement.

    Nothing is done where the schedule was changed, paused or removed since it was read. The due
    time is the run's key: several workers may do this at the same time, and there is one run.
    """
    at = max(latest_due(schedule.cron, schedule.timezone, now), schedule.next_at)
    following = next_due(schedule.cron, schedule.timezone, max(now, at))
    key = f"schedule:{schedule.name}:{at:%Y-%m-%dT%H:%MZ}"
    command = Submit(kind=schedule.kind, input=schedule.input, key=key).row(project.rules)
    asked = (project.project_id, project.actor_or_default(None), *columns([command]))
    moved = (schedule.name, schedule.updated_at, schedule.next_at, following, at)
    try:
        if await fetch(project.pool, _SUBMIT_DUE, *asked, *moved):
            project.waker.wake()
    except DuplicateKey:  # submitted before the schedule was changed: once is enough
        await fetch(project.pool, _ADVANCE, project.project_id, *moved)


async def until_next(project: Project, declared: Sequence[str]) -> timedelta | None:
    """Return how long it is until `due` returns a schedule; None if it never will."""
    present = await ledger_now(project.pool)
    [soonest] = await fetch(project.pool, _SOONEST, project.project_id, declared)
    return None if soonest["next_at"] is None else soonest["next_at"] - present


def _schedule(row: Any) -> Schedule:
    facts = dict(row)
    facts["input"] = payload_member(decode_payload(facts["input"]), "input")
    return Schedule(**facts)
