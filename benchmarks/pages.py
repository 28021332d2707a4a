"""Measures the pages at size: `RUNS=2000000 python -m benchmarks.pages` (3 GB of disk).

For each page the processor time of one request: of this process, which is the web server, and of
the server's backends (Linux only). What waits for other processes does not count, so a busy machine
hardly changes the figures. One run has 10,000 events.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.support.filling import KINDS, filled, paths
from tests.support.web import calling

from benchmarks import servers
from runfold.console.web import app
from runfold.console.web.options import Options
from runfold.ledger import Ledger

RUNS: Final = int(os.environ.get("RUNS", "2000000"))
EVENTS: Final = 10_000
LOOKS: Final = 30
PART: Final = 20_000
BEATS: Final = """
SELECT h.* FROM generate_series(1, $5::int) AS n
CROSS JOIN LATERAL ledger.heartbeat($1, ARRAY[$2::uuid], ARRAY[$3::int],
  ARRAY[make_interval(secs => 3600 + n * 0)], ARRAY[$4]) AS h
"""
BACKENDS: Final = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'"


async def main() -> dict[str, Any]:
    """Fill the tables; then ask for each page, often."""
    os.environ["RUNFOLD_POOL_SIZE"] = "1"
    async with servers.opened() as ledger:
        for kind in KINDS:
            await ledger.submit(kind)
        [asking] = await ledger.claim("w", kinds=["parse"])
        await ledger.ask_approval(asking, prompt="?")
        [long] = await ledger.claim("w", kinds=["review"], ttl=3600)
        values = (ledger.project_id, long.run_id, long.token, "w", EVENTS)
        await ledger.pool.execute(BEATS, *values, timeout=None)
        begun = time.perf_counter()
        await filled(ledger, RUNS, PART)
        took = round(time.perf_counter() - begun)
        run = await ledger.get(asking.run_id)
        addresses = [each for some in paths(run.run_id, run.version).values() for each in some]
        many = f"/runs/{long.run_id}"
        addresses += [many, f"{many}?beats=true", f"{many}/state?at=9000&vs=1", f"{many}/raw"]
        pages = await measured(ledger, addresses)
    slowest = max(page["p95_ms"] for page in pages.values())
    return {"runs": RUNS, "filled_in_s": took, "slowest_p95_ms": slowest, "pages": pages}


async def measured(ledger: Ledger, addresses: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return the times of each page in milliseconds."""
    backends = [row["pid"] for row in await ledger.pool.fetch(BACKENDS)]
    found = {}
    async with calling(app(ledger, Options(open=True))) as web:
        for address in addresses:
            times = []
            for _ in range(LOOKS + 1):
                before = spent(backends)
                page = await web.get(f"/p/{ledger.project_id}{address}")
                times.append(spent(backends) - before)
                assert page.status_code == 200, (address, page.text)
            ordered = sorted(times[1:])  # the first one compiles the template
            p95 = ordered[math.ceil(0.95 * len(ordered)) - 1]
            median = ordered[len(ordered) // 2]
            found[address] = {"median_ms": round(median, 1), "p95_ms": round(p95, 1)}
    return found


def spent(backends: Sequence[int]) -> float:
    """Return the processor time in milliseconds of this process and of the backends so far."""
    of_server = sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in backends)
    return time.process_time() * 1_000 + of_server / 1e6


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main()), indent=2))
