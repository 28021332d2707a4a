"""Checks of the work: leases that nobody reaps, kinds that nobody serves, schedules not kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from runfold.console.cli.health.check import Check, Level
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.postgres.opening import Database

SWEEPS_MISSED: Final = 3
WAITED_SECONDS: Final = 60.0
_COUNTED: Final = 1_000

EXPIRED: Final = """
SELECT project.project_id, expired.number, expired.oldest FROM ledger.project AS project
CROSS JOIN LATERAL (
  SELECT count(*) AS number,
    extract(epoch FROM ledger.now() - min(lease.lease_until))::float8 AS oldest
  FROM (
    SELECT run.lease_until FROM ledger.run_state AS run
    WHERE run.project_id = project.project_id AND run.token IS NOT NULL
      AND run.lease_until < ledger.now()
    LIMIT $1
  ) AS lease
) AS expired WHERE expired.number > 0 ORDER BY expired.oldest DESC
"""


async def leases(database: Database, reaper_seconds: float) -> Check:
    """Whether a lease expired so long ago that a reaper should have repaired it."""
    rows = await fetch(database.pool, EXPIRED, _COUNTED)
    if not rows:
        return Check("leases", Level.OK, "none has expired")
    shown = "; ".join(
        f"{_many(row['number'])} in project {row['project_id']}, {row['oldest']:.0f} s ago"
        for row in rows[:3]
    )
    if rows[0]["oldest"] <= SWEEPS_MISSED * reaper_seconds:
        return Check("leases", Level.OK, f"expired, reaped soon: {shown}")
    return Check(
        "leases", Level.FAILED, f"expired and not reaped: {shown}: keep `runfold reap` running"
    )


# By the two indexes of claims: the first of the runs that wait since they were submitted, and of
# each priority those that came due first. `asked` is a row of the query around this one. Runs that
# sleep are not read: the instant is a subquery, because no index is searched for a volatile value.
_WAITING: Final = f"""
SELECT waiting.available_at FROM (
  (SELECT run.available_at FROM ledger.run_state AS run
   WHERE run.project_id = asked.project_id AND run.kind = asked.kind
     AND run.available_at <= run.created_at
   ORDER BY run.priority, run.run_id LIMIT {_COUNTED})
  UNION ALL
  (WITH RECURSIVE level AS (
     SELECT -1 AS priority
     UNION ALL
     SELECT higher.priority FROM level AS last CROSS JOIN LATERAL (
       SELECT run.priority FROM ledger.run_state AS run
       WHERE run.project_id = asked.project_id AND run.kind = asked.kind
         AND run.available_at > run.created_at AND run.priority > last.priority
       ORDER BY run.priority, run.available_at LIMIT 1
     ) AS higher
   )
   SELECT due.available_at FROM level AS last CROSS JOIN LATERAL (
     SELECT run.available_at FROM ledger.run_state AS run
     WHERE run.project_id = asked.project_id AND run.kind = asked.kind
       AND run.available_at > run.created_at AND run.priority = last.priority
       AND run.available_at < (SELECT ledger.now() - interval '{WAITED_SECONDS} s')
     ORDER BY run.available_at LIMIT {_COUNTED}
   ) AS due)
) AS waiting
WHERE waiting.available_at < ledger.now() - interval '{WAITED_SECONDS} s' LIMIT {_COUNTED}
"""
_HELD: Final = """
SELECT FROM ledger.run_state AS held
WHERE held.project_id = asked.project_id AND held.kind = asked.kind AND held.token IS NOT NULL
"""
UNSERVED: Final = f"""
SELECT asked.project_id, asked.kind, late.number, late.oldest
FROM (SELECT DISTINCT known.project_id, known.kind FROM ledger.kind AS known) AS asked
CROSS JOIN LATERAL (
  SELECT count(*) AS number,
    extract(epoch FROM ledger.now() - min(waiting.available_at))::float8 AS oldest
  FROM ({_WAITING}) AS waiting
) AS late
WHERE late.number > 0 AND NOT EXISTS ({_HELD})
  AND NOT EXISTS (
    SELECT FROM ledger.kind_state AS settings
    WHERE settings.project_id = asked.project_id AND settings.kind = asked.kind
      AND settings.paused
  )
ORDER BY late.oldest DESC
"""
"""The kinds whose runs wait while nobody holds any of them, however many sleep."""


async def served(database: Database) -> Check:
    """Whether a kind has runs that wait while no worker holds any of it."""
    rows = await fetch(database.pool, UNSERVED)
    if not rows:
        return Check("kinds", Level.OK, "none waits without a worker")
    shown = "; ".join(
        f"{_many(row['number'])} of kind {row['kind']} in project {row['project_id']}, "
        f"for {row['oldest']:.0f} s"
        for row in rows[:3]
    )
    return Check(
        "kinds",
        Level.WARNING,
        f"runs wait and no worker holds any of their kind: {shown}: does a worker serve it?",
    )


def _many(number: int) -> str:
    return f"{number}" if number < _COUNTED else f"{_COUNTED:,} or more"


_OVERDUE: Final = """
SELECT schedule.project_id, schedule.name,
  extract(epoch FROM ledger.now() - schedule.next_at)::float8 AS late
FROM ledger.schedule AS schedule
WHERE schedule.next_at < ledger.now() - make_interval(secs => $1) AND {}
ORDER BY schedule.next_at LIMIT 1000
"""
ORPHANS: Final = f"""
SELECT asked.project_id, asked.name, asked.kind FROM ledger.schedule AS asked
WHERE asked.last_due IS NOT NULL AND asked.last_due < ledger.now() - interval '{WAITED_SECONDS} s'
  AND EXISTS ({_WAITING}) AND NOT EXISTS ({_HELD})
ORDER BY asked.project_id, asked.name LIMIT 1000
"""
"""The schedules that submit runs which wait while nobody holds any of their kind."""


async def schedules(database: Database) -> Check:
    """Whether every schedule is kept, and somebody serves the runs that it submits."""
    overdue = await fetch(
        database.pool, _OVERDUE.format("schedule.release IS NULL"), WAITED_SECONDS
    )
    if overdue:
        return Check(
            "schedules",
            Level.FAILED,
            f"{_many(len(overdue))} overdue: {_late(overdue)}: keep a worker running, it submits "
            "them",
        )
    undeclared = await fetch(
        database.pool, _OVERDUE.format("schedule.release IS NOT NULL"), WAITED_SECONDS
    )
    if undeclared:
        return Check(
            "schedules",
            Level.WARNING,
            f"{_many(len(undeclared))} paused, no running worker has their handler: "
            f"{_late(undeclared)}: start a worker that has it, or `runfold schedules remove NAME`",
        )
    orphans = await fetch(database.pool, ORPHANS)
    if orphans:
        shown = "; ".join(
            f"{row['name']} of kind {row['kind']} in project {row['project_id']}"
            for row in orphans[:3]
        )
        return Check(
            "schedules",
            Level.WARNING,
            f"{_many(len(orphans))} submit runs that no worker takes: {shown}: serve the kind, or "
            "`runfold schedules remove NAME`",
        )
    return Check("schedules", Level.OK, "kept")


def _late(rows: Sequence[Any]) -> str:
    return "; ".join(
        f"{row['name']} in project {row['project_id']}, {row['late']:.0f} s late"
        for row in rows[:3]
    )
