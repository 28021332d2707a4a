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
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import structlog

from benchmarks.peers import environments
from benchmarks.peers.measuring import FULL, MIDDLE, QUICK, Size, System
from benchmarks.peers.page import publish
from benchmarks.peers.report import table, written
from runfold.ledger.postgres.embedded.registry import EmbeddedPostgres

NAMES: Final = (
    "runfold", "pgqueuer", "oban", "procrastinate", "awa", "chancy", "absurd", "dbos", "plain",
)  # fmt: skip
OUT: Final = environments.ROOT / "docs" / "explanation" / "performance"
TRIED: Final = environments.ROOT / "build" / "peers"
"""Where the results of the quick size go, which are not published."""
ALONE_SECONDS: Final = 3_600


def main() -> None:
    """Install, measure, and write the results."""
    given = _arguments()
    if given.page:
        print(publish(json.loads(given.page.read_text()), given.page))
        return
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    size = {"quick": QUICK, "middle": MIDDLE, "full": FULL}[given.size]
    size = replace(size, minutes=given.minutes or size.minutes)
    problems = {name: environments.install(name) for name in given.only}
    problem = environments.install("eventsourcing")
    begun = time.monotonic()
    alone = {"folding": folding(size, problem), "holding": holding(size)}
    results = asyncio.run(measured(problems, size, begun)) | alone
    results["minutes"] = round((time.monotonic() - begun) / 60, 1)
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
    return parser.parse_args()


def folding(size: Size, problem: str | None) -> dict[str, Any]:
    """Append and fold beside `eventsourcing` and plain SQL, as `benchmarks.folding` does."""
    figures = _alone("benchmarks.folding", EVENTS=size.events)
    return figures if problem is None else {**figures, "eventsourcing": {"failed": problem}}


def holding(size: Size) -> dict[str, Any]:
    """Hold leases that beat, as `benchmarks.holding` does: no peer has such leases."""
    return _alone("benchmarks.holding", LEASES=size.leases, BEATS=size.beats)


def _alone(module: str, **given: int) -> dict[str, Any]:
    """Run a measurement that has a process and a server of its own; return its figures."""
    environment = os.environ | {name: str(value) for name, value in given.items()}
    try:
        done = subprocess.run(  # noqa: S603  a module of our own
            [sys.executable, "-m", module],
            capture_output=True, text=True, check=True, timeout=ALONE_SECONDS, env=environment,
        )  # fmt: skip
        figures: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{\n") :])
    except subprocess.CalledProcessError as error:
        figures = {"failed": (error.stderr.strip().splitlines() or ["it ended"])[-1]}
    except (subprocess.TimeoutExpired, ValueError) as error:
        figures = {"failed": str(error)}
    print(module, json.dumps(figures), file=sys.stderr, flush=True)
    return figures


async def measured(problems: dict[str, str | None], size: Size, begun: float) -> dict[str, Any]:
    """Measure every system that is installed, in as many rounds as there is time for."""
    load = os.getloadavg()
    names = [name for name, problem in problems.items() if problem is None]
    figures: dict[str, list[dict[str, Any]]] = {
        name: [] if problem is None else [{"skipped": problem}]
        for name, problem in problems.items()
    }
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="runfold-bench-") as home:
        Path(home).chmod(0o755)
        os.environ["RUNFOLD_HOME"] = str(Path(home) / "pg")
        with EmbeddedPostgres(Path(home) / "pg") as server:
            url = server.url()
            turn = asyncio.Lock()
            crashes = await asyncio.gather(*(_crashed(url, name, size, turn) for name in names))
            rounds = await _rounds(url, figures, names, size, begun)
            version = await _version(url)
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": platform.platform(),
        "cores": os.cpu_count(),
        "load_before": [round(one, 1) for one in load],
        "load_after": [round(one, 1) for one in os.getloadavg()],
        "python": platform.python_version(),
        "server": version,
        "size": asdict(size),
        "rounds": rounds,
        "versions": {name: environments.versions(name) for name in (*problems, "eventsourcing")},
        "crash": dict(zip(names, crashes, strict=True)),
        "figures": figures,
    }


async def _rounds(
    url: str, figures: dict[str, Any], names: list[str], size: Size, begun: float
) -> int:
    """Measure round after round, forth and back, and return how many there was time for."""
    end, longest = begun + size.minutes * 60, 0.0
    for number in range(size.rounds):
        start = time.monotonic()
        if number and start + longest > end:
            return number
        for place, name in enumerate(names if number % 2 == 0 else names[::-1]):
            share = (end - time.monotonic()) / (len(names) - place)
            figures[name].append(await _measured(url, name, number, size, share))
        longest = max(longest, time.monotonic() - start)
    return size.rounds


async def _measured(url: str, name: str, number: int, size: Size, seconds: float) -> dict[str, Any]:
    """Measure one system once, in a database of its own."""
    async with _system(url, name, str(number), size) as system:
        try:
            figures = await system.measure(seconds)
        except Exception as error:
            figures = {"skipped": f"cannot be run: {str(error) or type(error).__name__}"}
    print(name, number, json.dumps(figures), flush=True)
    return figures


async def _crashed(url: str, name: str, size: Size, turn: asyncio.Lock) -> dict[str, Any]:
    """Kill a worker of one system; the wait for its timeouts is beside the other systems."""
    async with _system(url, name, "crash", size) as system:
        try:
            figures = await system.crash(turn)
        except Exception as error:
            figures = {"failed": str(error) or type(error).__name__}
    print(name, "crash", figures, file=sys.stderr, flush=True)
    return figures


@asynccontextmanager
async def _system(url: str, name: str, label: str, size: Size) -> AsyncIterator[System]:
    """Make a database for one system, and drop it at the end."""
    database = f"bench_{name}_{label}"
    server = await asyncpg.connect(url)
    await server.execute(f"CREATE DATABASE {database}")
    own = urlunsplit(urlsplit(url)._replace(path=f"/{database}"))
    connection = await asyncpg.connect(own)
    try:
        with tempfile.TemporaryDirectory(prefix="runfold-bench-first-") as folder:
            yield System(name, own, connection, size, Path(folder))
    finally:
        await connection.close()
        await server.execute(f"DROP DATABASE {database} WITH (FORCE)")
        await server.execute("CHECKPOINT")
        await server.close()


async def _version(url: str) -> str:
    connection = await asyncpg.connect(url)
    text = str(await connection.fetchval("SELECT version()"))
    await connection.close()
    return text.split(" on ", maxsplit=1)[0]


if __name__ == "__main__":
    main()
