"""Measure what a submit costs the caller and the server: `python -m benchmarks.submit_cost`.

Microseconds a run, of CPU time and of time that passed, for so many callers at once and in bulk,
1,000 a call; the medians of ROUNDS. The server's part is that of its processes (Linux only). With
PROFILE=1 the caller is sampled, and its CPU time told by the code that had it.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import statistics
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from benchmarks.sampling import Sampler
from benchmarks.servers import opened
from benchmarks.worker_cost import cpu_of, server_processes
from runfold.ledger import Ledger, Submit

ROUNDS: Final = int(os.environ.get("ROUNDS", "5"))
RUNS: Final = int(os.environ.get("RUNS", "5000"))
CALLERS: Final = (1, 8, 32)
CALL: Final = 1_000
FEWEST: Final = 10
"""A single caller submits so many times fewer: each of its submits takes as long as a commit."""


async def main() -> dict[str, Any]:
    """Measure each way to submit."""
    async with opened() as ledger:
        await in_bulk(ledger, CALL)  # plans, caches and imports
        figures = {
            f"{callers} callers": await spent(
                ledger, RUNS if callers > 1 else RUNS // FEWEST, partial(singly, callers=callers)
            )
            for callers in CALLERS
        }
        figures["bulk"] = await spent(ledger, RUNS, in_bulk)
    return {"python": platform.python_version(), "rounds": ROUNDS, "microseconds": figures}


async def spent(
    ledger: Ledger, count: int, submit: Callable[[Ledger, int], Awaitable[None]]
) -> dict[str, Any]:
    """Return the microseconds a run that submitting so many takes."""
    rounds, sampler = [], Sampler()
    for _ in range(ROUNDS):
        server, began = cpu_of(await server_processes(ledger)), time.perf_counter()
        with sampler:
            own = time.process_time()
            await submit(ledger, count)
            own = time.process_time() - own
        wall = time.perf_counter() - began
        after = cpu_of(await server_processes(ledger))
        rounds.append((wall, own, 0.0 if after is None or server is None else after - server))
    wall, own, server = (
        statistics.median(part) / count * 1e6 for part in zip(*rounds, strict=True)
    )
    figures = {"passed": round(wall, 1), "caller": round(own, 1), "server": round(server, 1)}
    parts = sampler.parts(own)
    return {**figures, "caller_by_part": parts} if parts else figures


async def singly(ledger: Ledger, count: int, *, callers: int) -> None:
    """Submit one run a call."""
    numbers = iter(range(count))

    async def caller() -> None:
        for number in numbers:
            await ledger.submit("noop", number)

    await asyncio.gather(*(caller() for _ in range(callers)))


async def in_bulk(ledger: Ledger, count: int) -> None:
    """Submit 1,000 runs a call."""
    for first in range(0, count, CALL):
        numbers = range(first, first + CALL)
        await ledger.submit_many([Submit(kind="noop", input=number) for number in numbers])


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main()), indent=2))
