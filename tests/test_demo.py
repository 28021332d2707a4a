"""The demo, run for real: what it claims is looked up in the ledger that it leaves, and no process stays behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest

from console.demo.measure import call_tool, library, measure, sources, tool
from ledger import Ledger, State
from ledger.events import Event, LeaseAcquired, LeaseExpired, LeaseHeartbeat
from tests.waiting import until

FILES = 60


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A folder for the built-in PostgreSQL that its account can reach."""
    folder = Path(tempfile.mkdtemp(prefix="runfold-demo-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def start(home: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Start the demo as a program of its own; whatever of it is left at the end is killed."""
    started: list[subprocess.Popen[str]] = []
    code = f"from console.demo.main import run; raise SystemExit(run(json=True, files={FILES}))"

    def demo() -> subprocess.Popen[str]:
        environment = {**os.environ, "RUNFOLD_HOME": str(home)}
        pipe = subprocess.PIPE
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", code], env=environment, stdout=pipe, stderr=pipe, text=True
            )
        )
        return started[-1]

    yield demo
    for process in started:
        process.kill()
        process.communicate()
    for worker in workers_at(home):
        worker.kill()


def workers_at(home: Path) -> list[psutil.Process]:
    """Find the demo's workers of this home, whoever their parent is by now."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            is_worker = "console.demo.worker" in process.cmdline()
            if is_worker and process.environ().get("RUNFOLD_HOME") == str(home):
                found.append(process)
    return found


async def test_the_demo_shows_what_the_ledger_holds(
    start: Callable[[], subprocess.Popen[str]], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = time.monotonic()
    demo = start()
    output, talk = demo.communicate(timeout=90)
    told: dict[str, Any] = json.loads(output)

    assert (demo.returncode, told["ok"], told["problems"]) == (0, True, []), talk
    assert told["states"] == {"completed": FILES - 1, "cancelled": 1}
    assert told["killed"]["worker_id"]
    assert told["killed"]["run_ids"]
    assert told["seconds"] < time.monotonic() - began
    assert workers_at(home) == []

    monkeypatch.setenv("RUNFOLD_HOME", str(home))
    async with Ledger.open(project=told["project"]) as ledger:
        report = await ledger.verify()
        assert report.ok
        assert {name: getattr(report, name) for name in ("runs", "events", "payloads")}.items() <= told[
            "verify"
        ].items()
        for run_id in told["killed"]["run_ids"]:
            check_lost_run(await ledger.history(run_id), told["killed"]["worker_id"])
        shown = await ledger.history(told["history"][0]["run_id"])
        assert [(e["type"], e["hash"]) for e in told["history"]] == [(e.type, e.hash.hex()) for e in shown]
        assert any(isinstance(event, LeaseHeartbeat) for event in shown)
        await check_approvals(ledger, told["approvals"])
        await check_work(ledger)


def check_lost_run(history: list[Event], killed: str) -> None:
    """Fail unless the killed worker's lease was closed by the event that names it, and another worker took over."""
    acquired = [event for event in history if isinstance(event, LeaseAcquired)]
    lost = next(event for event in acquired if event.worker_id == killed)
    (expired,) = [event for event in history if isinstance(event, LeaseExpired)]

    assert expired.compensates == lost.token == lost.version
    assert [event.attempt for event in acquired][0] == 1
    after = [event for event in acquired if event.version > expired.version]
    assert after
    assert {event.attempt for event in after} == {2}
    assert killed not in {event.worker_id for event in after}
    assert [event.actor for event in history if event.version > expired.version].count(killed) == 0
    assert history[-1].state in {State.COMPLETED, State.CANCELLED}


async def check_approvals(ledger: Ledger, told: dict[str, list[str]]) -> None:
    """Fail unless every large file was asked about and decided, once."""
    assert len(told["granted"]) >= 1
    assert len(told["rejected"]) == 1
    for run_id in [*told["granted"], *told["rejected"]]:
        types = [event.type for event in await ledger.history(run_id)]
        assert types.count("approval.requested") == 1
        assert types.count("approval.granted") == (run_id in told["granted"])
        assert types[-1] == ("run.completed" if run_id in told["granted"] else "approval.rejected")
    for run in await ledger.list(state="completed", limit=FILES):
        large = run.output["lines"] > 3_000 or run.output["bytes"] > 120_000
        assert large == (str(run.run_id) in told["granted"])


async def check_work(ledger: Ledger) -> None:
    """Fail unless what the workers measured and what the tool said agree, and the tool was paid for."""
    for run in await ledger.list(state="completed", limit=FILES):
        history = await ledger.history(run.run_id)
        answers = [event.model_dump()["output"] for event in history if event.type == "tool.completed"]
        assert answers
        assert all(answer["bytes"] == run.output["bytes"] == run.input["bytes"] for answer in answers)
        assert run.cost_usd > 0
        assert run.step_count == len(answers) + 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
async def test_no_worker_outlives_the_demo(
    start: Callable[[], subprocess.Popen[str]], home: Path, number: int, code: int
) -> None:
    demo = start()
    await until(lambda: len(workers_at(home)) == 3, seconds=30)

    demo.send_signal(number)
    _, talk = demo.communicate(timeout=30)

    assert demo.returncode == code, talk
    assert "Traceback" not in talk
    await until(lambda: not workers_at(home))


async def test_a_worker_that_ends_unasked_fails_the_demo_with_one_clear_line(
    start: Callable[[], subprocess.Popen[str]], home: Path
) -> None:
    demo = start()
    await until(lambda: len(workers_at(home)) == 3, seconds=30)

    workers_at(home)[0].terminate()
    output, talk = demo.communicate(timeout=60)

    assert (demo.returncode, output) == (1, "")
    assert talk.splitlines()[-1].startswith("runfold demo: workers ended though nobody asked them to")
    assert workers_at(home) == []


def test_files_are_measured_for_real(tmp_path: Path) -> None:
    text = (
        "class A:\n    def f(self):\n        if self:\n            return 1\n\n\nasync def g():\n    pass\n"
    )
    path = tmp_path / "some.py"
    path.write_text(text)

    found = measure(path)

    assert found.shown() == {
        "bytes": len(text), "lines": 8, "functions": 2, "classes": 1, "nesting": 3,
    }  # fmt: skip
    assert call_tool(*tool(), path)["bytes"] == len(text)
    assert not found.exceeds


def test_the_library_has_enough_files_and_none_of_its_tests() -> None:
    files = [path for path, _ in sources(400)]

    assert len(files) >= 150
    assert files == sorted(set(files))
    assert not any({"test", "tests"} & set(path.relative_to(library()).parts) for path in files)
