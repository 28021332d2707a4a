"""How a worker process ends: within a bound, whatever the network and its handlers do."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest

from runfold.ledger import Ledger, State, names
from runfold.workers.process.bounds import END_SECONDS, HURRY_SECONDS, UNFINISHED
from tests.console.test_process import started
from tests.support.processes import said, worker
from tests.support.proxy import proxied
from tests.support.waiting import BOUND, until
from tests.support.working import FAST, LONG, reached

GRACE = 1
SLACK = 30.0
"""Seconds that a busy machine may add."""


async def ending(
    process: subprocess.Popen[Any], *, is_heard: Callable[[], object] | None = None
) -> float:
    """Send SIGTERM, and once more when the first is heard, if it is told by what; wait for the end.

    Two signals that a process has not heard are one to it. Return the seconds since the last.
    """
    since = time.monotonic()
    process.terminate()
    if is_heard is not None:
        await until(is_heard)
        since = time.monotonic()
        process.terminate()
    await asyncio.to_thread(process.wait, BOUND)
    return time.monotonic() - since


def is_pending(process: subprocess.Popen[Any]) -> bool:
    """Whether the system has a SIGTERM for a process that it has not delivered yet."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (pending,) = [line for line in status.splitlines() if line.startswith("ShdPnd:")]
    return bool(int(pending.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hang", "gated"])
async def test_a_worker_ends_within_its_bound_when_the_network_is_silent(
    ledger: Ledger, database: str, tmp_path: Path, kind: str
) -> None:
    gate, called = tmp_path / "gate", tmp_path / "called"
    await ledger.submit(kind, str(gate) if kind == "gated" else None)
    settings = {"TEST_CALLED": str(called)}
    async with proxied(database) as proxy:
        with worker(proxy.url, "--grace", f"{GRACE}s", settings=settings) as process:
            await until(called.exists)  # it has heard that the run is its own
            proxy.swallow()
            gate.touch()
            assert await ending(process) < GRACE + END_SECONDS + SLACK

    assert process.returncode == UNFINISHED


@pytest.mark.slow
async def test_a_second_signal_ends_a_worker_at_once_when_the_network_is_silent(
    ledger: Ledger, database: str, tmp_path: Path
) -> None:
    log, called = tmp_path / "log", tmp_path / "called"
    await ledger.submit("hang")
    words, settings = ("--verbose", "--grace", "1h"), {"TEST_CALLED": str(called)}
    async with proxied(database) as proxy:
        with worker(proxy.url, *words, log=log, settings=settings) as process:
            await until(called.exists)
            proxy.swallow()
            is_heard = partial(said, log, names.WORKER_STOPPING)
            assert await ending(process, is_heard=is_heard) < HURRY_SECONDS + SLACK

    assert process.returncode == UNFINISHED
    assert said(log, names.ENDED_BY_FORCE)


@pytest.mark.slow
@pytest.mark.parametrize(("twice", "bound"), [(False, END_SECONDS), (True, HURRY_SECONDS)])
async def test_a_duty_ends_within_its_bound_when_the_network_is_silent(
    database: str, *, twice: bool, bound: float
) -> None:
    async with proxied(database) as proxy:
        with started(proxy.url, "projections", "run", **FAST) as process:
            assert await asyncio.to_thread(_is_ready, process)
            proxy.swallow()
            await until(lambda: proxy.swallowed)
            is_heard = (lambda: not is_pending(process)) if twice else None
            assert await ending(process, is_heard=is_heard) < bound + SLACK


async def test_a_worker_that_connects_to_a_silent_server_ends_when_it_is_told_to(
    database: str,
) -> None:
    async with proxied(database) as proxy:
        proxy.swallow()
        with worker(proxy.url, "--grace", f"{GRACE}s") as process:
            await until(lambda: proxy.accepted)
            assert await ending(process) < GRACE + END_SECONDS + SLACK


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ignores", "stuck", "pooled"])
async def test_a_handler_that_ignores_the_end_does_not_hold_up_its_worker(
    ledger: Ledger, database: str, tmp_path: Path, kind: str
) -> None:
    called = tmp_path / "called"
    run = await ledger.submit(kind)
    settings = LONG | {"TEST_CALLED": str(called)}
    with worker(database, "--grace", f"{GRACE}s", settings=settings) as process:
        await until(called.exists)
        assert await ending(process) < GRACE + END_SECONDS + SLACK

    after = await ledger.get(run.run_id)
    assert (after.state, after.attempt_count, process.returncode) == (State.PENDING, 0, 0)


@pytest.mark.slow
async def test_a_handler_that_blocks_the_loop_does_not_keep_the_process(
    ledger: Ledger, database: str, tmp_path: Path
) -> None:
    called = tmp_path / "called"
    await ledger.submit("blocks")
    settings = {"TEST_CALLED": str(called)}
    with worker(database, "--grace", f"{GRACE}s", settings=settings) as process:
        await until(called.exists)
        assert await ending(process) < GRACE + END_SECONDS + SLACK
    assert process.returncode == UNFINISHED


@pytest.mark.slow
@pytest.mark.parametrize(
    ("grace", "twice", "bound"),
    [(f"{GRACE}s", False, GRACE + END_SECONDS), ("1h", True, HURRY_SECONDS)],
)
async def test_a_process_ends_although_its_interpreter_is_frozen(
    ledger: Ledger, database: str, tmp_path: Path, grace: str, *, twice: bool, bound: float
) -> None:
    called = tmp_path / "called"
    await ledger.submit("freezes", 3600)
    with worker(database, "--grace", grace, settings={"TEST_CALLED": str(called)}) as process:
        await until(called.exists)
        watching = psutil.Process(process.pid).children()
        is_heard = (lambda: not is_pending(process)) if twice else None
        assert await ending(process, is_heard=is_heard) < bound + SLACK
    assert process.returncode == -signal.SIGKILL
    assert psutil.wait_procs(watching, timeout=BOUND)[1] == []


@pytest.mark.slow
async def test_several_processes_end_although_one_of_them_is_frozen(
    ledger: Ledger, database: str, tmp_path: Path
) -> None:
    called = tmp_path / "called"
    await ledger.submit("freezes", 3600)
    words = ("--grace", f"{GRACE}s", "--processes", "2")
    with worker(database, *words, settings={"TEST_CALLED": str(called)}) as fleet:
        await until(called.exists)
        assert await ending(fleet) < GRACE + END_SECONDS + 2 * SLACK


@pytest.mark.slow
@pytest.mark.parametrize("way", ["signal", "loop"])
async def test_a_handler_cannot_take_the_signals_of_its_worker(
    ledger: Ledger, database: str, way: str
) -> None:
    run = await ledger.submit("deafens", way, max_attempts=1)
    with worker(database, "--grace", f"{GRACE}s") as process:
        failed = await reached(ledger, run, State.FAILED)
        assert failed.error_code == "E-RUN-004"
        assert "main thread" in str(failed.error_detail)
        assert await ending(process) < END_SECONDS + SLACK
    assert process.returncode == 0


def _is_ready(process: subprocess.Popen[str]) -> bool:
    """Whether a duty says that it goes on until it is told to end; else it has ended."""
    assert process.stderr is not None
    return any("Ctrl-C ends it" in line for line in process.stderr)
