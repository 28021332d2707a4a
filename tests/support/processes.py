"""Real worker processes for fault tests, and what must hold of their runs after any fault."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from runfold.ledger import Ledger, Run, Submission
from runfold.ledger.events import (
    Event,
    LeaseAcquired,
    LeaseExpired,
    LeaseReleased,
    StepCompleted,
    ToolCompleted,
)
from tests.support.databases import PROJECT
from tests.support.forked import Forked
from tests.support.working import FAST

ROOT = Path(__file__).parents[2]
WHOLE = ["0", "1", "2", "tool"]
"""The output of the handler `steps`."""
STEPS = {"step-0": 1, "step-1": 1, "step-2": 1, "tool": 1}


@contextmanager
def worker(
    database: str,
    *words: str,
    log: Path | None = None,
    name: str = "worker",
    settings: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `runfold worker` with its log as JSON lines in a file, and kill it in the end."""
    environment = {
        **os.environ,
        **FAST,
        "RUNFOLD_URL": database,
        "RUNFOLD_PROJECT": PROJECT,
        **(settings or {}),
    }
    given = ["tests.support.handlers"] if name == "worker" else []
    program = [sys.executable, "-m", "runfold.console.cli.entry", "--json", name, *given, *words]
    with (
        open(log or os.devnull, "ab") as errors,
        Forked[bytes](
            program, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=errors
        ) as process,
    ):
        try:
            yield process
        finally:
            kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a program and all that it started: a frozen child ends by itself only after a while."""
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()
    process.kill()


def said(log: Path, event: str) -> list[dict[str, Any]]:
    """Return the lines of a worker's log that report an event; a last line may be half written."""
    text = log.read_text() if log.exists() else ""
    lines = [
        line
        for line in text.splitlines(keepends=True)
        if line.startswith("{") and line.endswith("\n")
    ]
    return [found for found in map(json.loads, lines) if found.get("event") == event]


async def assert_story(
    ledger: Ledger, run: Run | Submission, *, output: Any = WHOLE, steps: dict[str, int] = STEPS
) -> None:
    """Fail unless the run completed, recorded each result once and accounts for every lease."""
    history = await ledger.history(run.run_id)
    recorded = Counter(
        event.name for event in history if isinstance(event, StepCompleted | ToolCompleted)
    )
    after = await ledger.get(run.run_id)
    assert (after.state, after.output) == ("completed", output)
    assert recorded == steps
    assert Counter(event.type for event in history)["run.completed"] == 1
    assert_accounted(history)


def assert_accounted(history: Iterable[Event]) -> None:
    """Fail unless every lease has its own token and ended on record before the next."""
    events = list(history)
    held: int | None = None
    for event in events:
        if isinstance(event, LeaseAcquired):
            assert held is None, f"#{event.version} begins a lease before that of #{held} has ended"
            held = event.token
        elif isinstance(event, LeaseExpired | LeaseReleased):
            assert event.compensates == held
            held = None
        elif event.state is not None and getattr(event, "token", None) is None:
            held = None  # it ended, was retried, or was parked
    tokens = [event.token for event in events if isinstance(event, LeaseAcquired)]
    ended = [
        event.compensates for event in events if isinstance(event, LeaseExpired | LeaseReleased)
    ]
    assert [event.version for event in events] == list(range(1, len(events) + 1))
    assert len(tokens) == len(set(tokens))
    assert len(ended) == len(set(ended))
    assert set(ended) <= set(tokens)
