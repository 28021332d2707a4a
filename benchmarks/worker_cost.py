"""Measure what a run costs the worker and the server: `python -m benchmarks.worker_cost`.

CPU time rather than rates, because a shared machine changes it less. For each number of slots one
worker drains RUNS no-op runs, ROUNDS times; the least of the rounds counts. The worker's part is
that of its process, the server's that of the processes under its postmaster (Linux only). With
PROFILE=1 the worker is sampled, and its CPU time told by the code that had it.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.sampling import Sampler
from benchmarks.servers import opened
from runfold.ledger import Ledger, Submit
from runfold.workers import Context, Worker, handler
from runfold.workers.process.collector import looking_less

RUNS: Final = int(os.environ.get("RUNS", "10000"))
ROUNDS: Final = int(os.environ.get("ROUNDS", "3"))
SLOTS: Final = tuple(map(int, os.environ.get("SLOTS", "1,5,10,50,200,500,1000").split(",")))
FEWEST: Final = 600
"""Runs for each slot at most: with one slot at a time they take long."""
_OPEN: Final = "SELECT EXISTS (SELECT FROM ledger.run_state WHERE completed_at IS NULL)"


BEGUN: list[int] = []
"""Runs of the drain that have begun. Until all have, the server is not asked which have ended."""


@handler("noop")
async def noop(_: Context, number: int) -> int:
    """Use nothing of the context."""
    BEGUN.append(number)
    return number


async def main() -> dict[str, Any]:
    """Measure each number of slots."""
    async with opened() as ledger:
        await drained(ledger, 50, 1_000)  # plans, caches and imports
        with looking_less():  # as `runfold worker` does
            curve = [await best(ledger, slots) for slots in SLOTS]
    loop = type(asyncio.get_running_loop()).__module__
    return {"python": platform.python_version(), "loop": loop, "rounds": ROUNDS, "curve": curve}


async def best(ledger: Ledger, slots: int) -> dict[str, Any]:
    """Return the least of the costs, and the best of the rates."""
    count = min(RUNS, FEWEST * max(slots, 5))
    rounds = [await drained(ledger, slots, count) for _ in range(ROUNDS)]
    figures: dict[str, Any] = {
        "slots": slots,
        "runs": count,
        "runs_per_second": round(max(count / one["wall"] for one in rounds)),
    }
    for name in ("worker", "server"):
        costs = [one[name] for one in rounds if one[name] is not None]
        figures[f"{name}_us"] = round(min(costs) / count * 1e6, 1) if costs else None
    if parts := rounds[-1]["parts"]:
        figures["worker_us_by_part"] = parts
    return figures


async def drained(ledger: Ledger, slots: int, count: int) -> dict[str, Any]:
    """Return the seconds and the CPU seconds that one worker takes for `count` runs."""
    for first in range(0, count, 1_000):
        numbers = range(first, min(first + 1_000, count))
        await ledger.submit_many([Submit(kind="noop", input=number) for number in numbers])
    processes = await server_processes(ledger)
    worker = Worker(ledger, noop, concurrency=slots, reap=False, schedule=False, listen=False)
    sampler = Sampler()
    server, began = cpu_of(processes), time.perf_counter()
    with sampler:
        spent = time.process_time()
        BEGUN.clear()
        task = asyncio.create_task(worker.run())
        while len(BEGUN) < count or await ledger.pool.fetchval(_OPEN):  # noqa: ASYNC110  only the database knows
            await asyncio.sleep(0.02)
        spent = time.process_time() - spent
    wall = time.perf_counter() - began
    after = cpu_of(await server_processes(ledger))
    worker.stop()
    await task
    return {
        "wall": wall,
        "worker": spent,
        "server": None if after is None or server is None else after - server,
        "parts": sampler.parts(spent / count * 1e6),
    }


async def server_processes(ledger: Ledger) -> Sequence[Path]:
    """Return the folders in /proc of the server's processes; none on another system."""
    pid = await ledger.pool.fetchval("SELECT pg_backend_pid()")
    parent = _parent(Path(f"/proc/{pid}"))
    return [path for path in Path("/proc").glob("[0-9]*") if parent and _parent(path) == parent]


def cpu_of(processes: Sequence[Path]) -> float | None:
    """Return the seconds of CPU time that processes have had; None where that is not known."""
    spent = [int((path / "schedstat").read_text().split()[0]) for path in processes]
    return sum(spent) / 1e9 if spent else None


def _parent(process: Path) -> str | None:
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[1]
    except OSError:  # it has ended
        return None


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main()), indent=2))
