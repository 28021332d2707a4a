"""Measures claims that come at once: `python -m benchmarks.crowding`.

As many connections as in CROWDS drain a queue of RUNS runs, each as a ledger of its own that claims
BATCH runs again and again. Printed are the runs a second, as a part of what the first crowd takes,
and how long the longest claim waited.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from contextlib import AsyncExitStack
from typing import Any, Final

from benchmarks import servers
from runfold.ledger import Ledger, Submit

RUNS: Final = int(os.environ.get("RUNS", "20000"))
CROWDS: Final = tuple(map(int, os.environ.get("CROWDS", "8,50,100,300").split(",")))
BATCH: Final = 10
PART: Final = 10_000
"""Runs that are submitted at a time."""


async def main() -> list[dict[str, Any]]:
    """Measure each crowd, and return its rate and its longest claim."""
    os.environ["RUNFOLD_POOL_SIZE"] = "1"
    found: list[dict[str, Any]] = []
    async with servers.opened({"max_connections": str(max(CROWDS) + 20)}) as ledger:
        for crowd in CROWDS:
            a_second, longest = await _drained(ledger, crowd)
            first = found[0]["a_second"] if found else a_second
            found.append(
                {
                    "connections": crowd,
                    "a_second": round(a_second),
                    "ratio": round(a_second / first, 2),
                    "longest_seconds": round(longest, 2),
                }
            )
    return found


async def _drained(ledger: Ledger, crowd: int) -> tuple[float, float]:
    """Return the runs a second that a crowd claims, and the seconds of its longest claim."""
    longest, taken = 0.0, 0

    async def drain(claimer: Ledger, worker_id: str) -> None:
        nonlocal longest, taken
        while True:
            began = time.perf_counter()
            leases = await claimer.claim(worker_id, kinds=["crowded"], limit=BATCH, ttl=3_600)
            longest = max(longest, time.perf_counter() - began)
            taken += len(leases)
            if not leases:
                return

    async with AsyncExitStack() as stack:
        opened = (Ledger.open(ledger.url, ledger.project_id) for _ in range(crowd))
        claimers = [await stack.enter_async_context(each) for each in opened]
        for first in range(0, RUNS, PART):
            runs = [Submit(kind="crowded")] * min(PART, RUNS - first)
            await ledger.submit_many(runs)
        for number, claimer in enumerate(claimers):  # what a connection's first claim costs
            await claimer.claim(f"first:{number}", kinds=["crowded"], limit=1)
        began = time.perf_counter()
        await asyncio.gather(
            *(drain(claimer, f"crowd:{number}") for number, claimer in enumerate(claimers))
        )
        return taken / (time.perf_counter() - began), longest


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main()), indent=2) + "\n")
