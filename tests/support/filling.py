"""Very many runs, written by few statements without the fold, and the pages to look at them."""

from __future__ import annotations

from typing import Final

from runfold.ledger import Ledger

KINDS: Final = ("seldom", "review", "parse", *(f"k{n}" for n in range(40)))
PART: Final = 1_000
"""Runs of one statement: a feed reads the events of one transaction at a time."""
FILL: Final = """
WITH made AS MATERIALIZED (
  SELECT n, ledger.uuid7_floor((moment AT TIME ZONE 'UTC')::timestamp) AS run_id, moment,
    CASE n % 3 WHEN 0 THEN 'parse' WHEN 1 THEN 'k' || n % 40 ELSE 'review' END AS kind,
    CASE WHEN n = 7 THEN 'failed' WHEN n % 400 = 1 THEN 'waiting_approval'
      WHEN n < $2 / 2 THEN 'completed' WHEN n % 100 = 0 THEN 'running' ELSE 'pending' END AS state
  FROM (SELECT n, now() - ($2 - n) * interval '1 ms' - interval '1 s' AS moment
    FROM generate_series($3::int, $4) AS n) AS at
), states AS (
  INSERT INTO ledger.run_state (project_id, run_id, version, hash, kind, state, priority,
    attempt_count, max_attempts, worker_id, token, lease_until, available_at, created_at,
    updated_at, completed_at, cost_usd, step_count, tags)
  SELECT $1, run_id, 2, '\\x00', kind, state, n % 2, 1, 3,
    CASE WHEN state = 'running' THEN 'w:' || n % 7 END, CASE WHEN state = 'running' THEN 2 END,
    CASE WHEN state = 'running' THEN moment END, CASE WHEN state = 'pending' THEN moment END,
    moment, moment, CASE WHEN state IN ('completed', 'failed') THEN moment END, 0, 0, '{}'
  FROM made
), contents AS (
  INSERT INTO ledger.payload (project_id, run_id, version, salt, body)
  SELECT $1, run_id, 1, '\\x00', '{"input": 1}' FROM made
)
INSERT INTO ledger.event (project_id, run_id, version, recorded_at, type, actor, state, kind,
  worker_id, name, token, attempt, lease_until, hash)
SELECT $1, run_id, version, moment, CASE WHEN version = 1 THEN 'run.submitted'
    WHEN n % 50 = 0 THEN 'write.refused' ELSE 'lease.acquired' END, 'filler',
  CASE WHEN version = 1 THEN 'pending' END, CASE WHEN version = 1 THEN kind END,
  CASE WHEN version = 2 THEN 'w' END, CASE WHEN version = 2 THEN 'heartbeat' END,
  CASE WHEN version = 2 THEN 2 END, CASE WHEN version = 2 THEN 1 END,
  CASE WHEN version = 2 THEN moment + interval '60 s' END, '\\x00'
FROM made CROSS JOIN generate_series(1, 2) AS version
"""
QUERIES: Final = (
    "", "state:failed", "state:completed kind:parse", "kind:review", "worker:%22w:3%22",
    "key:none", "tag:none", "state:pending cost:%3E1", "error:E since:30d", "kind:seldom",
    "-state:completed attempts:%3E2",
)  # fmt: skip


def paths(run_id: object, version: int) -> dict[str, list[str]]:
    """Return for each page of the application the addresses that are visited."""
    run = f"/runs/{run_id}"
    return {
        "": [""],
        "/runs": [f"/runs?q={query}" for query in QUERIES],
        "/runs/{run_id}": [run],
        "/runs/{run_id}/tree": [f"{run}/tree"],
        "/runs/{run_id}/raw": [f"{run}/raw"],
        "/runs/{run_id}/state": [f"{run}/state?at=2&vs=1"],
        "/runs/{run_id}/events/{version}": [f"{run}/events/2"],
        "/bulk": [f"/bulk?q={query}" for query in ("kind:parse", "state:pending tag:none")],
        "/approvals": ["/approvals", "/approvals?show=decided", "/approvals?show=snoozed"],
        "/approvals/{run_id}/{version}": [f"/approvals{run[5:]}/{version}"],
        "/workers": ["/workers"],
        "/kinds": ["/kinds"],
        "/projections": ["/projections"],
        "/cost": ["/cost"],
        "/whatif": ["/whatif?ttl=1"],
        "/archive": ["/archive"],
        "/integrity": ["/integrity", f"/integrity?run={run_id}"],
        "/audit": ["/audit"],
        "/audit/all": ["/audit/all"],
        "/reads": ["/reads"],
        "/webhooks": ["/webhooks"],
    }


async def filled(ledger: Ledger, runs: int, part: int = PART) -> None:
    """Write runs of KINDS with two events each, and analyse the tables.

    They are not consistent: the fold is off meanwhile.
    """
    execute = ledger.pool.execute
    await execute("ALTER TABLE ledger.event DISABLE TRIGGER fold_run_state")
    for first in range(1, runs, part):
        values = (ledger.project_id, runs, first, min(first + part - 1, runs))
        await execute(FILL, *values, timeout=None)
    await execute("ALTER TABLE ledger.event ENABLE ALWAYS TRIGGER fold_run_state")
    await execute("VACUUM (ANALYZE)", timeout=None)
