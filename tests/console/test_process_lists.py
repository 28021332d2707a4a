"""The list of processes, which everybody on a machine may read: no secret stands in it."""

from __future__ import annotations

import re
import socket
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest

from runfold.console.cli.commands import up_parts
from runfold.console.demo.measure import ToolUnavailable, call_tool
from runfold.console.demo.worker_processes import WorkerProcesses
from runfold.workers.process.fleet import Part
from runfold.workers.process.outside_watch import OutsideWatch

ROOT: Final = Path(__file__).parents[2]
CANARY: Final = "canary-of-the-url"
URL: Final = f"postgresql://ann:{CANARY}@127.0.0.1/runs"
STARTERS: Final = {
    "console/demo/worker_processes.py", "console/demo/measure.py", "workers/process/fleet.py",
    "workers/process/outside_watch.py",
    "ledger/postgres/embedded/store.py",  # see tests/ledger/postgres/test_embedded.py
}  # fmt: skip
STARTING: Final = re.compile(
    r"import (subprocess|multiprocessing)\b|create_subprocess_|ProcessPoolExecutor|"
    r"\bos\.(exec|fork|popen|posix_spawn|spawn|system)\w*\("
)


def test_the_modules_that_start_programs_are_those_whose_words_are_looked_at() -> None:
    sources = {
        path.relative_to(ROOT).as_posix(): path.read_text()
        for folder in ("console", "ledger", "projections", "workers")
        for path in (ROOT / folder).rglob("*.py")
    }
    assert {name for name, text in sources.items() if STARTING.search(text)} == STARTERS


async def test_no_program_is_started_with_a_secret_among_its_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those of a fleet of workers are looked at as processes, in test_process."""
    started: list[str] = []
    environments: list[str] = []

    def start(_: Any, words: list[Any], **how: Any) -> None:
        started.append(str(words))
        environments.append(str(how.get("env")))
        raise OSError("not started")

    class Recorded:
        def __init__(self, parts: list[Part], environment: dict[str, str], **_: Any) -> None:
            started.extend(str(part) for part in parts)
            environments.append(str(environment))

        async def run(self, _: Any) -> None:
            """Start nothing."""

    monkeypatch.setattr(subprocess.Popen, "__init__", start)
    monkeypatch.setattr(up_parts, "Fleet", Recorded)
    database: Any = SimpleNamespace(url=URL)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        console = up_parts.Console("test", "127.0.0.1", listener)
        await up_parts.stay_up(database, console, "tests.support.handlers", ready=lambda: None)
    with pytest.raises(OSError, match="not started"), WorkerProcesses(URL, "test", 1):
        pass
    with pytest.raises(ToolUnavailable):
        call_tool(["wc"], ["lines"], ROOT / "README.md")
    watch = OutsideWatch()
    watch.begin(1, 1)
    watch.end()

    assert [words for words in started if CANARY in words] == []
    assert len(started) == 5 + 3
    assert sum(CANARY in environment for environment in environments) == 2
