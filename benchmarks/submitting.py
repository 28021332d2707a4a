"""Measures submits and those of another checkout in turn: `python -m benchmarks.submitting OTHER`.

OTHER is another checkout of this repository. Both run on built-in servers
of their own, one after the other, several times. The ratios are what to read.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from benchmarks import servers
from runfold.ledger import Ledger, Submit

ROUNDS: Final = int(os.environ.get("ROUNDS", "5"))
SINGLE: Final = 12_000
BULK: Final = 40_000
CALLERS: Final = (1, 8, 32)


async def measured() -> dict[str, float]:
    """Submit alone by so many callers at once, and in bulk; runs a second each."""
    figures = {}
    async with servers.opened() as ledger:
        await _singly(ledger, 32, 2_000)
        for callers in CALLERS:
            count = SINGLE * callers // (callers + 8)
            figures[f"single submits, {callers} at once"] = await _singly(ledger, callers, count)
        start = time.perf_counter()
        for _ in range(BULK // 1_000):
            await ledger.submit_many([Submit(kind="noop", input={"t": 0})] * 1_000)
        figures["bulk, 1000 a call"] = BULK / (time.perf_counter() - start)
    return figures


async def _singly(ledger: Ledger, callers: int, count: int) -> float:
    numbers = iter(range(count))

    async def caller() -> None:
        for number in numbers:
            await ledger.submit("noop", {"t": number})

    start = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return count / (time.perf_counter() - start)


def in_turn(other: Path) -> None:
    """Measure both in turn and print the medians and the median of the ratios."""
    pairs = [(_run(Path.cwd()), _run(other)) for _ in range(ROUNDS)]
    for name in pairs[0][0]:
        own, before = ([pair[i][name] for pair in pairs] for i in (0, 1))
        ratio = statistics.median(a / b for a, b in zip(own, before, strict=True))
        print(f"{name:<28}{statistics.median(own):>9,.0f}/s{statistics.median(before):>9,.0f}/s"
              f"   ratio {ratio:.2f}", flush=True)  # fmt: skip


def _run(checkout: Path) -> dict[str, float]:
    script = Path(__file__).read_text()
    words = [sys.executable, "-c", script, "measure"]
    done = subprocess.run(  # noqa: S603  our own script
        words,
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


if __name__ == "__main__":
    if sys.argv[1:] == ["measure"]:
        print(json.dumps(asyncio.run(measured())))
    else:
        in_turn(Path(sys.argv[1]))
