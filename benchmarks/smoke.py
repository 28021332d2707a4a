"""Fails when a ratio falls far below what it should be: for checks on busy machines."""

from __future__ import annotations

import asyncio
import sys
from typing import Final

from benchmarks import raw, servers
from benchmarks.__main__ import bulk_submit, lifecycles, raw_lifecycles, raw_submit
from runfold.ledger.postgres.urls import driver_url

RUNS: Final = 2_000
BATCH: Final = 200
LEAST: Final = {"lifecycles": 0.15, "submission in bulk": 0.15}
"""Of plain statements, by the best of three: a third of what they are on a machine at rest."""


async def main() -> int:
    """Return 1 and say so if a ratio is too low."""
    async with servers.opened() as ledger, raw.opened(driver_url(str(ledger.url))) as pool:
        await raw_submit(pool)
        found = {
            "lifecycles": [
                await lifecycles(ledger, RUNS, BATCH) / await raw_lifecycles(pool, RUNS, BATCH)
                for _ in range(3)
            ],
            "submission in bulk": [
                await bulk_submit(ledger) / await raw_submit(pool) for _ in range(3)
            ],
        }
    low = 0
    for name, ratios in found.items():
        print(f"{name}: {max(ratios):.2f} of plain statements, at least {LEAST[name]}")
        low |= max(ratios) < LEAST[name]
    return low


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
