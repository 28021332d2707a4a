"""Measure how soon a worker begins what another process submits: `python -m benchmarks.pick_up`.

One process submits a run every few milliseconds, the worker of another does it; milliseconds from
before the submit to the handler's first line. The first tenth of each series is left out. What
a wait is made of is measured apart, with nothing else to do.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Awaitable
from typing import Any, Final

from benchmarks.servers import opened
from runfold.ledger import Ledger
from runfold.workers import Context, Worker, handler

EVERY_MS: Final = tuple(map(float, os.environ.get("EVERY_MS", "5,7,20,50,100,500").split(",")))
SECONDS: Final = float(os.environ.get("SECONDS", "8"))
"""How long a series takes, of at least 50 runs."""
LOOKS: Final = 100
QUIET_SECONDS: Final = 0.02
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
        parts = await made_of(ledger)
    return {"python": platform.python_version(), "pick_up": series, "medians_ms": parts}


async def made_of(ledger: Ledger) -> dict[str, float]:
    """Return the medians of what a run waits for, one after the other."""
    times: dict[str, list[float]] = {}
    heard = asyncio.Event()

    async def timed(name: str, call: Awaitable[object]) -> None:
        start = time.perf_counter()
        await call
        times.setdefault(name, []).append((time.perf_counter() - start) * 1_000)

    async def woken(sender: Any) -> None:
        heard.clear()
        await sender.execute("NOTIFY looked")
        await heard.wait()

    async with ledger.pool.acquire() as sender, ledger.pool.acquire() as listener:

        def hear(*_: object) -> None:
            heard.set()

        await listener.add_listener("looked", hear)
        for _ in range(LOOKS):
            await asyncio.sleep(QUIET_SECONDS)
            await timed("a statement that does nothing", sender.execute("SELECT 1"))
            await timed("a submit, with its wake-up", ledger.submit("look", 0))
            await timed("a wake-up, until it is heard", woken(sender))
            await timed("a claim", ledger.claim("bench:1", kinds=["look"]))
            await timed("a claim that finds nothing", ledger.claim("bench:1", kinds=["look"]))
        await listener.remove_listener("looked", hear)
    return {name: round(statistics.median(one), 2) for name, one in times.items()}


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
