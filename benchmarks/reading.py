"""Measures pages of runs at size: `RUNS=20000000 python -m benchmarks.reading` (10 GB of disk).

The states are written by one statement, without events: nothing but lists can be measured so. Old
runs have ended, the newest wait, one of the oldest has failed: the worst for a walk from the
newest.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import time
from typing import Any, Final

from benchmarks import servers
from runfold.ledger import Ledger

RUNS: Final = int(os.environ.get("RUNS", "5000000"))
LOOKS: Final = 50
PAGE: Final = 100
FILL: Final = """
INSERT INTO ledger.run_state (project_id, run_id, version, hash, kind, state, priority,
  attempt_count, max_attempts, worker_id, token, lease_until, available_at, created_at, updated_at,
  completed_at, cost_usd, step_count, tags)
SELECT 'default', ledger.uuid7_floor((moment AT TIME ZONE 'UTC')::timestamp), 1, '\\x00',
  CASE WHEN n % 3 = 0 THEN 'parse' ELSE 'review' END,
  state, n % 2, 1, 3, CASE WHEN state = 'running' THEN 'w:' || n % 7 END,
  CASE WHEN state = 'running' THEN 2 END, CASE WHEN state = 'running' THEN moment END,
  CASE WHEN state = 'pending' THEN moment END, moment, moment,
  CASE WHEN state IN ('completed', 'failed') THEN moment END, 0, 0, '{}'
FROM (SELECT n, timestamptz '2025-01-01Z' + n * interval '1 second' AS moment,
  CASE WHEN n = 7 THEN 'failed' WHEN n < $1 / 2 THEN 'completed' WHEN n < $1 / 2 + 1000
    THEN 'running' ELSE 'pending' END AS state
  FROM generate_series($2::bigint, $3) AS n OFFSET 0) AS made
"""
PART: Final = 1_000_000
FILTERS: Final[tuple[dict[str, Any], ...]] = (
    {}, {"state": "failed"}, {"state": "completed"}, {"state": "waiting_tool"},
    {"kind": "parse"}, {"kind": "seldom"}, {"worker_id": "w:3"}, {"key": "none"},
    {"kind": "parse", "state": "failed"}, {"kind": "review", "state": "completed"},
)  # fmt: skip


async def main() -> dict[str, Any]:
    """Fill the table; then read a page by each filter, often."""
    async with servers.opened() as ledger:
        for kind in ("seldom", "review", "parse"):
            await ledger.submit(kind)
        for first in range(1, RUNS + 1, PART):
            last = min(first + PART - 1, RUNS)
            await ledger.pool.execute(FILL, RUNS, first, last, timeout=None)
        await ledger.pool.execute("VACUUM (ANALYZE) ledger.run_state", timeout=None)
        pages = {json.dumps(given): await _looked(ledger, given) for given in FILTERS}
    return {"runs": RUNS, "page": PAGE, "median_ms": pages}


async def _looked(ledger: Ledger, given: dict[str, Any]) -> float:
    times = []
    for _ in range(LOOKS):
        start = time.perf_counter()
        await ledger.runs(**given, limit=PAGE)
        times.append((time.perf_counter() - start) * 1_000)
    return round(statistics.median(times), 2)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main()), indent=2))
