"""Measure how soon a worker begins what another process submits: `python -m benchmarks.pick_up`.

One process submits a run every few milliseconds, the worker of another does it; milliseconds from
before the submit to the handler's first line. The first tenth of each series is left out.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import sys
import time
from typing import Any, Final

from benchmarks.servers import opened
from runfold.ledger import Ledger
from runfold.workers import Context, Worker, handler

EVERY_MS: Final = tuple(map(float, os.environ.get("EVERY_MS", "5,7,20,50,100,500").split(",")))
SECONDS: Final = float(os.environ.get("SECONDS", "8"))
"""How long a series takes, of at least 50 runs."""
WAITS: Final[list[float]] = []


@handler("look")
async def look(_: Context, asked_at: float) -> None:
    """Note how long the run waited."""
    WAITS.append((time.time() - asked_at) * 1_000)


async def main() -> dict[str, Any]:
    """Measure each interval."""
    async with opened() as ledger:
        assert ledger.url is not None
        series = [await picked_up(ledger, ledger.url, every) for every in EVERY_MS]
    return {"python": platform.python_version(), "pick_up": series}


async def picked_up(ledger: Ledger, url: str, every_ms: float) -> dict[str, float]:
    """Return the quantiles for runs that come so often."""
    count = max(int(SECONDS * 1_000 / every_ms), 50)
    WAITS.clear()
    worker = Worker(ledger, look, reap=False, schedule=False, poll=5)
    task = asyncio.create_task(worker.run())
    words = ("-m", "benchmarks.pick_up", url, str(every_ms), str(count))
    process = await asyncio.create_subprocess_exec(sys.executable, *words)
    assert await process.wait() == 0
    while len(WAITS) < count:  # noqa: ASYNC110  the handler counts
        await asyncio.sleep(0.05)
    worker.stop()
    await task
    waits = sorted(WAITS[count // 10 :])
    return {
        "every_ms": every_ms,
        "runs": len(waits),
        **{f"p{part}_ms": round(waits[int(len(waits) * part / 100)], 1) for part in (50, 95, 99)},
    }


async def submitting(url: str, every_ms: float, count: int) -> None:
    """Submit runs at a steady pace, whatever a submit takes."""
    async with Ledger.open(url, "default") as ledger:
        await asyncio.sleep(0.5)
        start = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                await asyncio.sleep(start + number * every_ms / 1_000 - time.perf_counter())
                group.create_task(ledger.submit("look", time.time()))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(submitting(sys.argv[1], float(sys.argv[2]), int(sys.argv[3])))
    else:
        print(json.dumps(asyncio.run(main()), indent=2))
