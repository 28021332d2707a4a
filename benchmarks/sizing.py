"""Measure the bytes of a run's events: `python -m benchmarks.sizing`.

A fresh database, RUNS runs through four phases with small contents. Tables count with their
indexes and bloat; WAL counts from a checkpoint, so the first touch of each page is in it.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

from runfold.events import StepCompleted
from runfold.ledger import Lease, Ledger, Submit, Transition
from runfold.ledger.postgres.embedded.postgres import EmbeddedPostgres

RUNS: Final = int(os.environ.get("RUNS", "20000"))
BATCH: Final = 500
BEATS: Final = 4
CONTENT: Final = {"text": "x" * 90}
"""The input, the output and the result of each step: about 100 bytes of JSON."""
_STANDING: Final = """
SELECT pg_current_wal_lsn() - '0/0'::pg_lsn AS wal,
  (SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('ledger.event')) AS event,
  pg_total_relation_size('ledger.payload') AS payload,
  pg_total_relation_size('ledger.run_state') AS run_state
"""


async def main() -> dict[str, Any]:
    """Run every phase and return the bytes that it took for each run."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="runfold-bench-") as home:
        Path(home).chmod(0o755)
        os.environ["RUNFOLD_HOME"] = str(Path(home) / "pg")
        with EmbeddedPostgres(Path(home) / "pg"):
            async with Ledger.open(project="default") as ledger:
                return await phases(ledger)


async def phases(ledger: Ledger) -> dict[str, Any]:
    """Measure each phase of the runs, one after the other."""
    leases: list[Lease] = []

    async def submit() -> None:
        for _ in range(RUNS // BATCH):
            await ledger.submit_many([Submit(kind="sized", input=CONTENT)] * BATCH)

    async def claim() -> None:
        while claimed := await ledger.claim("w:1", limit=BATCH, ttl=3_600):
            leases.extend(claimed)

    return {
        "runs": RUNS,
        "content_bytes": len(json.dumps(CONTENT)),
        "submission": await measured(ledger, submit),
        "lease": await measured(ledger, claim),
        "heartbeat": await measured(ledger, partial(beat, ledger, leases), BEATS),
        "step": await measured(ledger, partial(step, ledger, leases)),
        "completion": await measured(ledger, partial(complete, ledger, leases)),
    }


async def beat(ledger: Ledger, leases: list[Lease]) -> None:
    """Send some heartbeats for every lease."""
    for _ in range(BEATS):
        for batch in batches(leases):
            await ledger.heartbeat(batch)


async def step(ledger: Ledger, leases: list[Lease]) -> None:
    """Record one step under every lease; calls that meet share a statement."""
    event = StepCompleted(name="step", output=CONTENT)
    for batch in batches(leases):
        await asyncio.gather(*(ledger.append(lease, event) for lease in batch))


async def complete(ledger: Ledger, leases: list[Lease]) -> None:
    """Complete every run."""
    for batch in batches(leases):
        await ledger.transition_many(
            [Transition(lease, "completed", output=CONTENT) for lease in batch]
        )


def batches(leases: list[Lease]) -> Iterator[list[Lease]]:
    """Return the leases in parts of one call's size."""
    return (leases[first : first + BATCH] for first in range(0, len(leases), BATCH))


async def measured(
    ledger: Ledger, phase: Callable[[], Awaitable[None]], times: int = 1
) -> dict[str, int]:
    """Return what a phase added to each table and to the WAL, in bytes for one event of a run."""
    await ledger.pool.execute("CHECKPOINT")
    before = await ledger.pool.fetchrow(_STANDING)
    await phase()
    after = await ledger.pool.fetchrow(_STANDING)
    assert before is not None
    assert after is not None
    return {name: round((after[name] - size) / RUNS / times) for name, size in before.items()}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main()), indent=2))
