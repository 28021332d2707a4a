"""What is measured of Runfold alone, or beside plain SQL, by programs that have a server each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from benchmarks.peers import environments
from benchmarks.peers.sizes import Size

SECONDS: Final = 3_600
Figures = dict[str, Any]


def folding(size: Size, problem: str | None) -> Figures:
    """Append and fold beside `eventsourcing` and plain SQL, as `benchmarks.folding` does."""
    given = {"EVENTS": size.events, "PEER_EVENTS": size.events // 30}
    figures = _figures("benchmarks.folding", sys.executable, **given)
    return figures if problem is None else {**figures, "eventsourcing": {"failed": problem}}


def holding(size: Size) -> Figures:
    """Hold leases that beat, as `benchmarks.holding` does: no peer has such leases."""
    return _figures("benchmarks.holding", sys.executable, LEASES=size.leases, BEATS=size.beats)


def cost(size: Size) -> Figures:
    """Tell what a run costs the worker and the server at each number of slots."""
    python = environments.python_of("runfold")  # the same Python as beside the peers
    return _figures("benchmarks.worker_cost", str(python), RUNS=size.cost_runs, ROUNDS=2)


def _figures(module: str, python: str, **given: int) -> Figures:
    environment = os.environ | {name: str(value) for name, value in given.items()}
    try:
        done = subprocess.run(  # noqa: S603  a module of our own
            [python, "-m", module], cwd=Path(environments.ROOT), capture_output=True, text=True,
            check=True, timeout=SECONDS, env=environment,
        )  # fmt: skip
        figures: Figures = json.loads(done.stdout[done.stdout.index("{\n") :])
    except subprocess.CalledProcessError as error:
        figures = {"failed": (error.stderr.strip().splitlines() or ["it ended"])[-1]}
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        figures = {"failed": str(error)}
    print(module, json.dumps(figures), file=sys.stderr, flush=True)
    return figures
