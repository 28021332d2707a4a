"""Measures Runfold beside its peers: `make bench-peers`, or with QUICK=1 in its smallest size.

Every system has an environment of its own, from its own lock, and in every round a fresh database
on the same server; rounds are interleaved. A drain has ended when the database says so. A system
that cannot be installed or run is named with the reason.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import asyncpg
import structlog

from benchmarks.peers import alone, environments
from benchmarks.peers.page import publish
from benchmarks.peers.report import table, written
from benchmarks.peers.rounds import Rounds
from benchmarks.peers.sizes import FULL, MIDDLE, QUICK, Size
from runfold.ledger.postgres.embedded.postgres import EmbeddedPostgres

NAMES: Final = (
    "runfold", "pgqueuer", "oban", "procrastinate", "awa", "chancy", "absurd", "dbos", "plain",
)  # fmt: skip
OUT: Final = environments.ROOT / "docs" / "explanation" / "performance"
TRIED: Final = environments.ROOT / "build" / "peers"
"""Where the results of the quick size go, which are not published."""
CRASH_SECONDS: Final = 15
"""How long a crash takes of the machine; the waits for timeouts take as long as five of them."""
CPUS: Final = Path("/proc/cpuinfo")


def main() -> None:
    """Install, measure, and write the results."""
    given = _arguments()
    if given.page:
        print(publish(json.loads(given.page.read_text()), given.page))
        return
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    others = () if given.held else ("eventsourcing", "plot")
    problems = {name: environments.install(name) for name in (*given.only, *others)}
    if given.install:
        print(json.dumps(problems, indent=1))
        return
    size = {"quick": QUICK, "middle": MIDDLE, "full": FULL}[given.size]
    size = replace(size, minutes=given.minutes or size.minutes)
    if given.held:
        print(json.dumps(asyncio.run(held(list(given.only), size)), indent=1))
        return
    results = measured(problems, size)
    print(table(results))
    is_published = given.out is None and given.size != "quick"
    paths = written(results, given.out or (OUT if is_published else TRIED))
    if is_published:
        paths.append(publish(results, paths[0]))
    for path in paths:
        print(path)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers")
    parser.add_argument("--size", choices=("quick", "middle", "full"), default="middle")
    parser.add_argument("--minutes", type=float, help="how long it may take, without installing")
    parser.add_argument("--only", nargs="*", default=NAMES, metavar="NAME", help="these systems")
    parser.add_argument("--out", type=Path, help="where the results go")
    parser.add_argument("--page", type=Path, metavar="JSON", help="only publish these results")
    parser.add_argument("--held", action="store_true", help="only without and with a held snapshot")
    parser.add_argument("--install", action="store_true", help="only make the environments")
    return parser.parse_args()


def measured(problems: dict[str, str | None], size: Size) -> dict[str, Any]:
    """Measure everything, and return it with what it was measured on."""
    load, begun = os.getloadavg(), time.monotonic()
    results: dict[str, Any] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load_before": [round(one, 1) for one in load],
        "python": platform.python_version(),
        "size": asdict(size),
        "folding": alone.folding(size, problems["eventsourcing"]),
        "cost": alone.cost(size),
    }
    results |= asyncio.run(beside(problems, size, begun + size.minutes * 60))
    results["load_after"] = [round(one, 1) for one in os.getloadavg()]
    results["minutes"] = round((time.monotonic() - begun) / 60, 1)
    return results


async def held(names: list[str], size: Size) -> dict[str, Any]:
    """Drain without a held snapshot for half of the time, and with one for the other half."""
    size = replace(size, held_seconds=size.minutes * 60 / len(names) / 2)
    with served() as server:
        return await Rounds(server.url(), names, size, 0).part("held_snapshot")


async def beside(problems: dict[str, str | None], size: Size, end: float) -> dict[str, Any]:
    """Measure every system that is installed, on one server."""
    systems = {name: problem for name, problem in problems.items() if name in NAMES}
    figures: dict[str, list[dict[str, Any]]] = {
        name: [] if problem is None else [{"skipped": problem}] for name, problem in systems.items()
    }
    names = [name for name, problem in systems.items() if problem is None]
    with served() as server:
        rounds = Rounds(server.url(), names, size, end - CRASH_SECONDS * (len(names) + 5))
        number = await rounds.measure(figures)
        # Leases that beat take little, and those who wait after a crash take nothing.
        crashes, holding = await asyncio.gather(
            rounds.crashes(), asyncio.to_thread(alone.holding, size)
        )
        return {
            "server": await _version(server.url()),
            "versions": {name: environments.versions(name) for name in problems},
            "rounds": number,
            "figures": figures,
            "crash": crashes,
            "holding": holding,
        }


@contextmanager
def served() -> Iterator[EmbeddedPostgres]:
    """Run a server in a folder that is deleted with it."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="runfold-bench-") as home:
        Path(home).chmod(0o755)
        os.environ["RUNFOLD_HOME"] = str(Path(home) / "pg")
        with EmbeddedPostgres(Path(home) / "pg") as server:
            yield server


def _processor() -> str:
    texts = CPUS.read_text().splitlines() if CPUS.exists() else []
    models = [line.split(":", 1)[1].strip() for line in texts if line.startswith("model name")]
    return models[0] if models else platform.machine()


async def _version(url: str) -> str:
    connection = await asyncpg.connect(url)
    text = str(await connection.fetchval("SELECT version()"))
    await connection.close()
    return text.split(" on ", maxsplit=1)[0]


if __name__ == "__main__":
    main()
