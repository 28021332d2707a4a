"""The demo: real files, a worker that is really killed, a decision, and the proof."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest

from runfold.console.demo import reviews
from runfold.console.demo.measure import call_tool, library, measure, sources, tool
from runfold.ledger import Ledger
from runfold.ledger.events import Event, ToolCompleted
from runfold.ledger.postgres.embedded.postgres import EmbeddedPostgres
from tests.support.forked import Forked
from tests.support.server_folder import open_folder
from tests.support.waiting import BOUND, until
from tests.support.working import ended, working

pytestmark = pytest.mark.slow

FILES = 48
MANY_FILES = 150
"""So many that no demo is over before a test has done something to its workers."""


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """The folder of a built-in PostgreSQL that stays up for all demos."""
    with open_folder() as folder, EmbeddedPostgres(folder):
        yield folder


@pytest.fixture
def start(home: Path) -> Iterator[Callable[[int], subprocess.Popen[str]]]:
    """Start the demo as a program of its own; whatever of it is left at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def demo(files: int) -> subprocess.Popen[str]:
        code = (
            "from runfold.console.demo.main import run; "
            f"raise SystemExit(run(json=True, files={files}))"
        )
        environment = {**os.environ, "RUNFOLD_HOME": str(home)}
        pipe = subprocess.PIPE
        started.append(
            Forked[str](
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
            is_worker = "runfold.console.demo.worker" in process.cmdline()
            if is_worker and process.environ().get("RUNFOLD_HOME") == str(home):
                found.append(process)
    return found


async def any_worker(home: Path) -> psutil.Process:
    """Return the first worker found: a busy machine may miss the seconds of all three."""
    found: list[psutil.Process] = []

    def look() -> bool:
        found.extend(workers_at(home))
        return bool(found)

    await until(look)
    return found[0]


async def test_the_demo_shows_what_the_ledger_holds(
    start: Callable[[int], subprocess.Popen[str]], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = time.monotonic()
    demo = start(FILES)
    output, talk = demo.communicate(timeout=2 * BOUND)
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
        assert (report.runs, report.events) == (told["verify"]["runs"], told["verify"]["events"])
        for run_id in told["killed"]["run_ids"]:
            await check_lost_run(ledger, run_id, told["killed"]["worker_id"])
        await check_history(ledger, told["history"], told["killed"]["run_ids"])
        await check_approvals(ledger, told["approvals"])
        await check_work(ledger)


async def check_lost_run(ledger: Ledger, run_id: str, killed: str) -> None:
    """Fail unless an event that names it ended the killed worker's lease, and another took over."""
    rows = await ledger.pool.fetch(_EVENTS, ledger.project_id, run_id)
    acquired = [row for row in rows if row["type"] == "lease.acquired"]
    (expired,) = [row for row in rows if row["type"] == "lease.expired"]
    lost = next(row for row in acquired if row["worker_id"] == killed)
    later = [row for row in rows if row["version"] > expired["version"]]
    anew = [row for row in later if row["type"] == "lease.acquired"]

    assert expired["compensates"] == lost["token"] == lost["version"]
    charged = expired["attempt"] is None  # else the worker had begun nothing under its lease
    assert (lost["attempt"], {row["attempt"] for row in anew}) == (1, {2 if charged else 1})
    assert killed not in {row["actor"] for row in later}
    assert rows[-1]["state"] in {"completed", "cancelled"}


_EVENTS = "SELECT * FROM ledger.event WHERE project_id = $1 AND run_id = $2 ORDER BY version"


async def check_history(ledger: Ledger, told: list[dict[str, Any]], lost: list[str]) -> None:
    """Fail unless the history is a lost run's, with beats and the compensating event."""
    assert told[0]["run_id"] in lost
    events: Sequence[Event] = await ledger.history(told[0]["run_id"])
    assert [(e["type"], e["hash"]) for e in told] == [(e.type, e.hash.hex()) for e in events]
    types = [event["type"] for event in told]
    first, expired = types.index("lease.acquired"), types.index("lease.expired")
    assert told[expired]["compensates"] == told[first]["version"]
    assert "lease.heartbeat" in types[first:expired] or told[expired].get("attempt") is not None
    assert "lease.acquired" in types[expired:]


async def check_approvals(ledger: Ledger, told: dict[str, list[str]]) -> None:
    """Fail unless every large file was asked about and decided, once."""
    assert len(told["granted"]) >= 1
    assert len(told["rejected"]) == 1
    for run_id in [*told["granted"], *told["rejected"]]:
        events: Sequence[Event] = await ledger.history(run_id)
        types = [event.type for event in events]
        assert types.count("approval.requested") == 1
        assert types.count("approval.granted") == (run_id in told["granted"])
        assert types[-1] == ("run.completed" if run_id in told["granted"] else "approval.rejected")
    for run in await ledger.runs(state="completed", limit=FILES):
        large = run.output["lines"] > 3_000 or run.output["bytes"] > 120_000
        assert large == (str(run.run_id) in told["granted"])


async def check_work(ledger: Ledger) -> None:
    """Fail unless the measures and the tool's answers agree, and the tool was paid for."""
    for run in await ledger.runs(state="completed", limit=FILES):
        events: Sequence[Event] = await ledger.history(run.run_id)
        answers: list[Any] = [event.output for event in events if isinstance(event, ToolCompleted)]
        assert answers
        assert all(
            answer["bytes"] == run.output["bytes"] == run.input["bytes"] for answer in answers
        )
        assert run.cost_usd > 0
        assert run.step_count == len(answers) + 1


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)]
)
async def test_no_worker_outlives_the_demo(
    start: Callable[[int], subprocess.Popen[str]], home: Path, number: int, code: int
) -> None:
    demo = start(MANY_FILES)
    await any_worker(home)

    demo.send_signal(number)
    _, talk = demo.communicate(timeout=BOUND)

    assert demo.returncode == code, talk
    assert "Traceback" not in talk
    await until(lambda: not workers_at(home))


async def test_a_worker_that_ends_unasked_fails_the_demo_with_one_clear_line(
    start: Callable[[int], subprocess.Popen[str]], home: Path
) -> None:
    demo = start(MANY_FILES)
    worker = await any_worker(home)

    worker.terminate()
    output, talk = demo.communicate(timeout=BOUND)

    assert (demo.returncode, output) == (1, "")
    assert talk.splitlines()[-1].startswith("runfold demo: workers ended unasked")
    assert workers_at(home) == []


async def test_the_pages_get_reviews_to_watch_and_one_to_approve(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reviews, "PAUSE_SECONDS", (0, 0))
    monkeypatch.setattr(reviews, "FILES", 10)
    submitting = asyncio.create_task(reviews.submit_reviews(ledger))
    async with working(ledger, reviews.review):
        await until(lambda: ledger.runs(state="waiting_approval"))
        [asked] = await ledger.runs(state="waiting_approval")
        await ledger.approve(asked, actor="ann")
        finished = await ended(ledger, asked)
    submitting.cancel()
    assert (finished.state, finished.output["exceeds"]) == ("completed", True)


def test_files_are_measured_for_real(tmp_path: Path) -> None:
    text = (
        "class A:\n    def f(self):\n        if self:\n            return 1\n\n\n"
        "async def g():\n    pass\n"
    )
    path = tmp_path / "some.py"
    path.write_text(text)

    found = measure(path)

    assert found.shown() == {
        "bytes": len(text), "lines": 8, "functions": 2, "classes": 1, "nesting": 3,
    }  # fmt: skip
    assert call_tool(*tool(), path)["bytes"] == len(text)
    assert not found.is_large


def test_the_library_has_enough_files_and_none_of_its_tests() -> None:
    files = [path for path, _ in sources(400)]

    assert len(files) >= 150
    assert files == sorted(set(files))
    assert not any({"test", "tests"} & set(path.relative_to(library()).parts) for path in files)
