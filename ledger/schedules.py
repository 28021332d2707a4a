"""Schedules: which runs are asked for when; the duty in `runfold.workers.duties.scheduler` asks. See docs/decisions/0024."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from runfold.ledger.cron import check_cron, latest_due, next_due
from runfold.ledger.errors import DuplicateKey
from runfold.ledger.payload import decode_payload, encode_payload
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.validation import check_actor, check_text

if TYPE_CHECKING:
    from runfold.ledger.ledger import Ledger

MAX_NAME: Final = 150
BATCH: Final = 100
_NOW: Final = "SELECT ledger.now() AS now"
# Declared again unchanged, it keeps its next due time: what was missed meanwhile is still made up for.
_PUT: Final = """
INSERT INTO ledger.schedule AS s (project_id, name, kind, input, cron, timezone, next_at, actor)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (project_id, name) DO UPDATE SET
  kind = excluded.kind, input = excluded.input, cron = excluded.cron, timezone = excluded.timezone, actor = excluded.actor,
  updated_at = clock_timestamp(),
  next_at = CASE WHEN (s.cron, s.timezone) = (excluded.cron, excluded.timezone) THEN s.next_at ELSE excluded.next_at END
RETURNING name, kind, input, cron, timezone, next_at, last_due, actor
"""
_DROP: Final = "DELETE FROM ledger.schedule WHERE project_id = $1 AND name = $2 RETURNING name"
_ALL: Final = """
SELECT name, kind, input, cron, timezone, next_at, last_due, actor FROM ledger.schedule WHERE project_id = $1 ORDER BY name
"""
_DUE: Final = """
SELECT name, kind, input, cron, timezone, next_at, last_due, actor FROM ledger.schedule
WHERE project_id = $1 AND next_at <= $2 ORDER BY next_at, name LIMIT $3
"""
_SOONEST: Final = "SELECT min(next_at) AS next_at FROM ledger.schedule WHERE project_id = $1"
_ADVANCE: Final = """
UPDATE ledger.schedule SET next_at = $6, last_due = $7
WHERE project_id = $1 AND name = $2 AND cron = $3 AND timezone = $4 AND next_at = $5
"""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A run of `kind` is asked for whenever `cron` is due in `timezone`; `last_due` is the due time that was asked for last."""

    name: str
    kind: str
    input: Any
    cron: str
    timezone: str
    next_at: datetime
    last_due: datetime | None
    actor: str


Schedules: TypeAlias = list[Schedule]


async def put(
    ledger: Ledger, name: str, kind: str, given: Any, *, cron: str, timezone: str, actor: str
) -> Schedule:
    """Make a schedule or change the one of this name; see `Ledger.schedule`."""
    check_text("name", name, limit=MAX_NAME)
    check_text("kind", kind)
    check_actor(actor)
    check_cron(cron, timezone)
    body = encode_payload({"input": given}, ledger.settings.payload_limit_bytes)
    [clock] = await fetch(ledger.pool, _NOW)
    due = next_due(cron, timezone, clock["now"])
    [row] = await fetch(
        ledger.pool, _PUT, ledger.project_id, name, kind, body, cron, timezone, due, actor
    )
    return _schedule(row)


async def drop(ledger: Ledger, name: str) -> bool:
    """Take a schedule away; tell whether there was one."""
    return bool(
        await fetch(ledger.pool, _DROP, ledger.project_id, check_text("name", name, limit=MAX_NAME))
    )


async def every(ledger: Ledger) -> Schedules:
    """Give every schedule by name."""
    return [_schedule(row) for row in await fetch(ledger.pool, _ALL, ledger.project_id)]


async def due(ledger: Ledger) -> tuple[Schedules, datetime]:
    """Give what is due by the database's clock, the longest overdue first and at most a hundred; and that clock."""
    [clock] = await fetch(ledger.pool, _NOW)
    rows = await fetch(ledger.pool, _DUE, ledger.project_id, clock["now"], BATCH)
    return [_schedule(row) for row in rows], clock["now"]


async def ask(ledger: Ledger, schedule: Schedule, now: datetime) -> None:
    """Submit the latest due time of a schedule, under a key that is its own, and move the schedule on.

    Anybody may do it at the same time: the key gives the same run. A crash in between repeats the key, not the run.
    """
    at = max(latest_due(schedule.cron, schedule.timezone, now), schedule.next_at)
    key = f"schedule:{schedule.name}:{at:%Y-%m-%dT%H:%MZ}"
    with suppress(DuplicateKey):  # asked for before the schedule was changed: once is enough
        await ledger.submit(schedule.kind, schedule.input, key=key)
    following = next_due(schedule.cron, schedule.timezone, max(now, at))
    seen = (schedule.name, schedule.cron, schedule.timezone, schedule.next_at)
    await fetch(ledger.pool, _ADVANCE, ledger.project_id, *seen, following, at)


async def until_next(ledger: Ledger) -> timedelta | None:
    """Give how long it is until something is due; None when there is no schedule."""
    [clock], [soonest] = (
        await fetch(ledger.pool, _NOW),
        await fetch(ledger.pool, _SOONEST, ledger.project_id),
    )
    return None if soonest["next_at"] is None else soonest["next_at"] - clock["now"]


def _schedule(row: Any) -> Schedule:
    facts = dict(row)
    facts["input"] = (decode_payload(facts["input"]) or {}).get("input")
    return Schedule(**facts)
