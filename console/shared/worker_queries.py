"""Queries about the workers of a project: the runs they hold, and their writes that were refused.

Each function returns a query over project $1 that reads by an index and returns a bounded number
of rows.
"""

from __future__ import annotations


def held_runs(most: int) -> str:
    """Return the query of the runs that are held.

    No index has the end of a lease: each heartbeat would have to move it. An index has the held
    runs by kind, at most as many as workers have slots; OFFSET 0 keeps any other from being used.
    """
    return f"""
SELECT run.* FROM (SELECT DISTINCT known.kind FROM ledger.kind AS known
  WHERE known.project_id = $1) AS kinds
CROSS JOIN LATERAL (
  SELECT run.worker_id, run.run_id, run.kind, run.state, run.token, run.attempt_count,
    run.max_attempts, run.lease_until, run.heartbeat_at, run.started_at, run.cancel_requested_at
  FROM ledger.run_state AS run
  WHERE run.project_id = $1 AND run.kind = kinds.kind AND run.token IS NOT NULL OFFSET 0) AS run
LIMIT {most}
"""


def holders(runs: int, most: int) -> str:
    """Return the query of the workers that hold runs, the one whose lease ends first at the top."""
    return f"""
SELECT held.worker_id, count(*) AS leases, min(held.lease_until) AS ends_first,
  count(*) FILTER (WHERE held.lease_until < ledger.now()) AS expired,
  max(held.heartbeat_at) AS heard_at
FROM ({held_runs(runs)}) AS held GROUP BY held.worker_id
ORDER BY ends_first, held.worker_id LIMIT {most}
"""


def refused_writes(most: int) -> str:
    """Return the query of the writes that were refused, those of the newest runs first."""
    return f"""
SELECT event.run_id, event.version, event.recorded_at, event.worker_id, event.name, event.token,
  event.credential
FROM ledger.event AS event WHERE event.project_id = $1 AND event.type = 'write.refused'
ORDER BY event.project_id DESC, event.run_id DESC, event.token DESC, event.name DESC LIMIT {most}
"""
