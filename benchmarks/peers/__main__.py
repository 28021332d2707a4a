"""Measures Runfold beside its peers: `make bench-peers`, or with QUICK=1 in some minutes.

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
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import structlog

from benchmarks.peers import environments
from benchmarks.peers.measuring import FULL, QUICK, Size, System
from benchmarks.peers.report import table, written
from runfold.ledger.postgres.embedded.registry import EmbeddedPostgres

NAMES: Final = (
    "runfold", "pgqueuer", "oban", "procrastinate", "awa", "chancy", "absurd", "dbos", "plain",
)  # fmt: skip
OUT: Final = environments.ROOT / "docs" / "explanation" / "performance"


def main() -> None:
    """Install, measure, and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers")
    parser.add_argument("--quick", action="store_true", help="small, and one round")
    parser.add_argument("--rounds", type=int, help="3, or with --quick 1")
    parser.add_argument("--only", nargs="*", default=NAMES, metavar="NAME", help="these systems")
    parser.add_argument("--out", type=Path, default=OUT, help="where the results go")
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    problems = {name: environments.install(name) for name in given.only}
    rounds = given.rounds or (1 if given.quick else 3)
    size = QUICK if given.quick else FULL
    results = asyncio.run(measured(problems, size, rounds))
    if not given.quick:
        results["folding"] = folding()
    print(table(results))
    for path in written(results, given.out):
        print(path)


def folding() -> dict[str, Any]:
    """Append and fold beside `eventsourcing` and plain SQL, as `benchmarks.folding` does."""
    problem = environments.install("eventsourcing")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.folding"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["it ended"])[-1]}
    figures: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])
    return figures if problem is None else {**figures, "eventsourcing": problem}


async def measured(problems: dict[str, str | None], size: Size, rounds: int) -> dict[str, Any]:
    """Measure every system that is installed, in so many rounds."""
    figures: dict[str, list[dict[str, Any]]] = {name: [] for name in problems}
    load = os.getloadavg()
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="runfold-bench-") as home:
        Path(home).chmod(0o755)
        os.environ["RUNFOLD_HOME"] = str(Path(home) / "pg")
        with EmbeddedPostgres(Path(home) / "pg") as server:
            for number in range(rounds):
                names = list(problems) if number % 2 == 0 else list(problems)[::-1]
                for name in names:
                    figures[name].append(
                        {"skipped": problems[name]}
                        if problems[name]
                        else await _measured(server.url(), name, number, size)
                    )
            version = await _version(server.url())
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": platform.platform(),
        "cores": os.cpu_count(),
        "load_before": [round(one, 1) for one in load],
        "load_after": [round(one, 1) for one in os.getloadavg()],
        "python": platform.python_version(),
        "server": version,
        "size": {name: getattr(size, name) for name in size.__slots__},
        "rounds": rounds,
        "versions": {name: environments.versions(name) for name in problems},
        "figures": figures,
    }


async def _measured(url: str, name: str, number: int, size: Size) -> dict[str, Any]:
    """Measure one system once, in a database of its own."""
    database = f"bench_{name}_{number}"
    server = await asyncpg.connect(url)
    await server.execute(f"CREATE DATABASE {database}")
    own = urlunsplit(urlsplit(url)._replace(path=f"/{database}"))
    connection = await asyncpg.connect(own)
    try:
        with tempfile.TemporaryDirectory(prefix="runfold-bench-first-") as folder:
            system = System(name, own, connection, size, Path(folder))
            figures = await system.measure()
    except Exception as error:
        figures = {"skipped": f"cannot be run: {str(error) or type(error).__name__}"}
    finally:
        await connection.close()
        await server.execute(f"DROP DATABASE {database} WITH (FORCE)")
        await server.execute("CHECKPOINT")
        await server.close()
    print(name, number, json.dumps(figures), flush=True)
    return figures


async def _version(url: str) -> str:
    connection = await asyncpg.connect(url)
    text = str(await connection.fetchval("SELECT version()"))
    await connection.close()
    return text.split(" on ", maxsplit=1)[0]


if __name__ == "__main__":
    main()
