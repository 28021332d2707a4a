"""Measure the full runtime: `python -m benchmarks.running`. Rates depend on the machine."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import statistics
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from runfold.ledger import Ledger, Submit
from runfold.ledger.postgres.embedded.postgres import EmbeddedPostgres
from runfold.workers import Context, Worker, handler

RUNS = 10_000
LOOKS = 100


BEGUN: list[float] = []
"""How many milliseconds after they were asked for runs began."""


@handler("noop")
async def noop(_: Context, asked_at: float) -> float:
    """Note when the work began; the output makes a payload of its own."""
    BEGUN.append((time.time() - asked_at) * 1_000)
    return BEGUN[-1]


async def main() -> dict[str, Any]:
    """Run both measurements and give the figures."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="runfold-bench-") as home:
        Path(home).chmod(0o755)
        os.environ["RUNFOLD_HOME"] = str(Path(home) / "pg")
        with EmbeddedPostgres(Path(home) / "pg"):
            async with Ledger.open(project="default") as ledger:
                throughput = [await drained(ledger, slots) for slots in (10, 50, 200)]
                return {"throughput": throughput, "idle_pick_up_ms": await picked_up(ledger)}


async def drained(ledger: Ledger, slots: int) -> dict[str, float]:
    """Return the no-op runs a second that one worker with so many slots finishes and records."""
    for _ in range(RUNS // 1_000):
        await ledger.submit_many([Submit(kind="noop", input=time.time())] * 1_000)
    BEGUN.clear()
    worker = Worker(ledger, noop, concurrency=slots, reap=False)
    start = time.perf_counter()
    task = asyncio.create_task(worker.run())
    while len(BEGUN) < RUNS:  # noqa: ASYNC110  the handler counts, so that nothing else burdens the server meanwhile
        await asyncio.sleep(0.005)
    unfinished = "SELECT EXISTS (SELECT FROM ledger.run_state WHERE completed_at IS NULL)"
    while await ledger.pool.fetchval(unfinished):  # noqa: ASYNC110  only the database knows
        await asyncio.sleep(0.005)
    rate = RUNS / (time.perf_counter() - start)
    worker.stop()
    await task
    return {"slots": slots, "runs_per_second": round(rate)}


async def picked_up(ledger: Ledger) -> dict[str, float]:
    """Return how long after a submit an idle worker's handler begins."""
    worker = Worker(ledger, noop, reap=False)
    task = asyncio.create_task(worker.run())
    runs = []
    for _ in range(LOOKS):
        runs.append(await ledger.submit("noop", time.time()))
        await asyncio.sleep(0.1)
    worker.stop()
    with suppress(asyncio.CancelledError):
        await task
    waits = sorted([(await ledger.get(run.run_id)).output for run in runs][5:])
    return {
        "p50": round(statistics.median(waits), 1),
        "p95": round(waits[int(len(waits) * 0.95)], 1),
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main()), indent=2))
