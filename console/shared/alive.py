"""What is alive in a project: the runs that are held, who holds them, and writes that were refused.

Each returns the text of a statement over the project $1 that reads by an index, within a bound.
"""

from __future__ import annotations


def held(most: int) -> str:
    """Return the query of the runs that are held.

    No index has the end of a lease: each beat would have to move it. The held runs are as many as
    workers have slots, and an index has them by kind; OFFSET 0, so that no other is used.
    """
    return f"""
SELECT s.* FROM (SELECT DISTINCT k.kind FROM ledger.kind AS k WHERE k.project_id = $1) AS kinds
CROSS JOIN LATERAL (
  SELECT s.worker_id, s.run_id, s.kind, s.state, s.token, s.attempt_count, s.max_attempts,
    s.lease_until, s.heartbeat_at, s.started_at, s.cancel_requested_at
  FROM ledger.run_state AS s
  WHERE s.project_id = $1 AND s.kind = kinds.kind AND s.token IS NOT NULL OFFSET 0) AS s
LIMIT {most}
"""


def holders(runs: int, most: int) -> str:
    """Return the query of who holds runs, whose lease ends first at the top."""
    return f"""
SELECT held.worker_id, count(*) AS leases, min(held.lease_until) AS ends_first,
  count(*) FILTER (WHERE held.lease_until < ledger.now()) AS expired,
  max(held.heartbeat_at) AS heard_at
FROM ({held(runs)}) AS held GROUP BY held.worker_id ORDER BY ends_first, held.worker_id LIMIT {most}
"""


def refusals(most: int) -> str:
    """Return the query of the writes that were refused, those of the newest runs first."""
    return f"""
SELECT e.run_id, e.version, e.recorded_at, e.worker_id, e.name, e.token, e.credential
FROM ledger.event AS e WHERE e.project_id = $1 AND e.type = 'write.refused'
ORDER BY e.project_id DESC, e.run_id DESC, e.token DESC, e.name DESC LIMIT {most}
"""
