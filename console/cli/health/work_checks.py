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

_EXPIRED: Final = """
SELECT p.project_id, l.number, l.oldest FROM ledger.project AS p CROSS JOIN LATERAL (
  SELECT count(*) AS number,
    extract(epoch FROM ledger.now() - min(x.lease_until))::float8 AS oldest
  FROM (
    SELECT s.lease_until FROM ledger.run_state AS s
    WHERE s.project_id = p.project_id AND s.token IS NOT NULL AND s.lease_until < ledger.now()
    LIMIT $1
  ) AS x
) AS l WHERE l.number > 0 ORDER BY l.oldest DESC
"""


async def leases(database: Database, reaper_seconds: float) -> Check:
    """Whether a lease expired so long ago that a reaper should have repaired it."""
    rows = await fetch(database.pool, _EXPIRED, _COUNTED)
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
# each priority those that came due first. What sleeps is not walked: the instant is a query of its
# own, since a clock that runs is no bound of an index.
_WAITING: Final = f"""
SELECT x.available_at FROM (
  (SELECT s.available_at FROM ledger.run_state AS s
   WHERE s.project_id = k.project_id AND s.kind = k.kind AND s.available_at <= s.created_at
   ORDER BY s.priority, s.run_id LIMIT {_COUNTED})
  UNION ALL
  (WITH RECURSIVE level AS (
     SELECT -1 AS priority
     UNION ALL
     SELECT n.priority FROM level AS l CROSS JOIN LATERAL (
       SELECT s.priority FROM ledger.run_state AS s
       WHERE s.project_id = k.project_id AND s.kind = k.kind AND s.available_at > s.created_at
         AND s.priority > l.priority
       ORDER BY s.priority, s.available_at LIMIT 1
     ) AS n
   )
   SELECT due.available_at FROM level AS l CROSS JOIN LATERAL (
     SELECT s.available_at FROM ledger.run_state AS s
     WHERE s.project_id = k.project_id AND s.kind = k.kind AND s.available_at > s.created_at
       AND s.priority = l.priority
       AND s.available_at < (SELECT ledger.now() - interval '{WAITED_SECONDS} s')
     ORDER BY s.available_at LIMIT {_COUNTED}
   ) AS due)
) AS x WHERE x.available_at < ledger.now() - interval '{WAITED_SECONDS} s' LIMIT {_COUNTED}
"""
_HELD: Final = """
SELECT FROM ledger.run_state AS h
WHERE h.project_id = k.project_id AND h.kind = k.kind AND h.token IS NOT NULL
"""
UNSERVED: Final = f"""
SELECT k.project_id, k.kind, w.number, w.oldest
FROM (SELECT DISTINCT x.project_id, x.kind FROM ledger.kind AS x) AS k
CROSS JOIN LATERAL (
  SELECT count(*) AS number,
    extract(epoch FROM ledger.now() - min(x.available_at))::float8 AS oldest
  FROM ({_WAITING}) AS x
) AS w
WHERE w.number > 0 AND NOT EXISTS ({_HELD})
  AND NOT EXISTS (
    SELECT FROM ledger.kind_state AS q
    WHERE q.project_id = k.project_id AND q.kind = k.kind AND q.paused
  )
ORDER BY w.oldest DESC
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
SELECT s.project_id, s.name, extract(epoch FROM ledger.now() - s.next_at)::float8 AS late
FROM ledger.schedule AS s
WHERE s.next_at < ledger.now() - make_interval(secs => $1) AND {}
ORDER BY s.next_at LIMIT 1000
"""
ORPHANS: Final = f"""
SELECT k.project_id, k.name, k.kind FROM ledger.schedule AS k
WHERE k.last_due IS NOT NULL AND k.last_due < ledger.now() - interval '{WAITED_SECONDS} s'
  AND EXISTS ({_WAITING}) AND NOT EXISTS ({_HELD})
ORDER BY k.project_id, k.name LIMIT 1000
"""
"""The schedules that submit runs which wait while nobody holds any of their kind."""


async def schedules(database: Database) -> Check:
    """Whether every schedule is kept, and somebody serves the runs that it submits."""
    overdue = await fetch(database.pool, _OVERDUE.format("s.release IS NULL"), WAITED_SECONDS)
    if overdue:
        return Check(
            "schedules",
            Level.FAILED,
            f"{_many(len(overdue))} overdue: {_late(overdue)}: keep a worker running, it submits "
            "them",
        )
    undeclared = await fetch(
        database.pool, _OVERDUE.format("s.release IS NOT NULL"), WAITED_SECONDS
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
