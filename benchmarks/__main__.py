"""Measures the write path against the raw limit on the same server in the same run: `make bench`.

Absolute rates depend on the machine and what else it does; the ratios are what to read. Each pair
is measured in turn, several times, and the median of the ratios is given.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import platform
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from benchmarks import raw
from runfold.ledger import Lease, Ledger, Receipt, Submit, Transition
from runfold.ledger.postgres.embedded.postgres import EmbeddedPostgres

ROUNDS = 5
RUNS = 8_000
INPUT = {"path": "a/b/c.py", "size": 1234}
OUTPUT = {"lines": 120, "ok": True}
Measure = Callable[[], Awaitable[float]]


async def main() -> dict[str, Any]:
    """Run every comparison and give the figures."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="runfold-bench-") as home:
        Path(home).chmod(0o755)
        with EmbeddedPostgres(Path(home) / "pg") as server:
            os.environ["RUNFOLD_HOME"] = str(Path(home) / "pg")
            async with Ledger.open(project="default") as ledger:
                version = await ledger.pool.fetchval("SELECT version()")
                async with raw.opened(server.url()) as pool:
                    figures = await compare_all(ledger, pool)
    return {"machine": platform.platform(), "cores": os.cpu_count(),
        "python": platform.python_version(),
            "server": version.split(" on ")[0], "rounds": ROUNDS, "figures": figures}  # fmt: skip


async def compare_all(ledger: Ledger, pool: raw.Pool) -> list[dict[str, Any]]:
    """Measure each pair."""
    figures = []
    for batch, count in ((1, 600), (20, 2_000), (200, RUNS), (1_000, RUNS)):
        ours, limit = (
            partial(lifecycles, ledger, count, batch),
            partial(raw_lifecycles, pool, count, batch),
        )
        figures.append(await compare(f"lifecycles, batch {batch}", ours, limit))
    figures.append(
        await compare(
            "submit_many, batch 1000", partial(bulk_submit, ledger), partial(raw_submit, pool)
        )
    )
    for tasks in (1, 8):
        limit = partial(bare_commits, pool, tasks)
        figures.append(
            await compare(
                f"single submits, {tasks} at once", partial(single_submits, ledger, tasks), limit
            )
        )
        figures.append(
            await compare(
                f"single transitions, {tasks} at once",
                partial(single_transitions, ledger, tasks),
                limit,
            )
        )
    return figures


async def compare(name: str, ours: Measure, limit: Measure) -> dict[str, Any]:
    """Measure two things in turn; give the medians and the median of the ratios, pair by pair."""
    await ours()
    await limit()
    pairs = [(await ours(), await limit()) for _ in range(ROUNDS)]
    figure = {
        "what": name,
        "ledger_per_second": round(statistics.median(a for a, _ in pairs)),
        "raw_per_second": round(statistics.median(b for _, b in pairs)),
        "ratio": round(statistics.median(a / b for a, b in pairs), 2),
    }
    ledger, raw = figure["ledger_per_second"], figure["raw_per_second"]
    print(f"{name:<34}{ledger:>9,}/s   raw {raw:>9,}/s   ratio {figure['ratio']:.2f}",
          file=sys.stderr)  # fmt: skip
    return figure


async def lifecycles(ledger: Ledger, count: int, batch: int) -> float:
    """Lease and complete runs that wait; lifecycles a second with one claimer."""
    await fill(ledger, count)
    done = 0
    start = time.perf_counter()
    while done < count:
        leases = await ledger.claim("bench:1", limit=batch)
        outcomes = await ledger.transition_many([completion(lease) for lease in leases])
        assert all(isinstance(outcome, Receipt) for outcome in outcomes)
        done += len(leases)
    return count / (time.perf_counter() - start)


async def raw_lifecycles(pool: raw.Pool, count: int, batch: int) -> float:
    """Write the same rows by plain statements."""
    ids = await raw_fill(pool, count)
    start = time.perf_counter()
    for at in range(0, count, batch):
        await raw.lifecycle(pool, ids[at : at + batch])
    return count / (time.perf_counter() - start)


async def bulk_submit(ledger: Ledger) -> float:
    """Submit runs in bulk; runs a second."""
    start = time.perf_counter()
    await fill(ledger, RUNS)
    rate = RUNS / (time.perf_counter() - start)
    await drain(ledger)
    return rate


async def raw_submit(pool: raw.Pool) -> float:
    """Write the same rows by plain statements."""
    start = time.perf_counter()
    await raw_fill(pool, RUNS)
    return RUNS / (time.perf_counter() - start)


async def single_submits(ledger: Ledger, tasks: int) -> float:
    """Submit one run a transaction."""

    async def one(_: int) -> None:
        await ledger.submit("noop", INPUT)

    rate = await spread(one, 300 * tasks, tasks)
    await drain(ledger)
    return rate


async def single_transitions(ledger: Ledger, tasks: int) -> float:
    """Complete one run a transaction."""
    await fill(ledger, 300 * tasks)
    leases = await ledger.claim("bench:1", limit=300 * tasks)

    async def one(index: int) -> None:
        await ledger.transition(leases[index], "completed", output=OUTPUT)

    return await spread(one, len(leases), tasks)


async def bare_commits(pool: raw.Pool, tasks: int) -> float:
    """Commit one bare row a transaction."""

    async def one(_: int) -> None:
        await raw.commit(pool)

    return await spread(one, 300 * tasks, tasks)


async def spread(one: Callable[[int], Awaitable[None]], count: int, tasks: int) -> float:
    """Call `one` so often, by so many tasks at once; calls a second."""
    indexes = iter(range(count))

    async def worker() -> None:
        for index in indexes:
            await one(index)

    start = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(tasks)))
    return count / (time.perf_counter() - start)


def completion(lease: Lease) -> Transition:
    """Complete a run with a small output and a cost."""
    return Transition(lease, "completed", output=OUTPUT, cost_usd_delta=0.01, step_count_delta=2)


async def fill(ledger: Ledger, count: int, batch: int = 1000) -> None:
    """Submit runs."""
    for at in range(0, count, batch):
        await ledger.submit_many([Submit(kind="noop", input=INPUT)] * min(batch, count - at))


async def drain(ledger: Ledger) -> None:
    """Complete what waits."""
    while leases := await ledger.claim("bench:1", limit=1000):
        await ledger.transition_many([completion(lease) for lease in leases])


async def raw_fill(pool: raw.Pool, count: int, batch: int = 1000) -> list[uuid.UUID]:
    """Write the rows of submitted runs by plain statements, with ids in time order."""
    ids = [uuid.UUID(int=(time.time_ns() << 60) + i) for i in range(count)]
    for at in range(0, count, batch):
        await raw.submit(pool, ids[at : at + batch])
    return ids


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main()), indent=2))
