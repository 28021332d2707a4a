"""How a worker process ends: within a bound, whatever the network and its handlers do."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
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


async def ending(process: subprocess.Popen[Any], *pauses: float) -> float:
    """Send SIGTERM, and again after each pause; return the seconds until the process ended."""
    since = time.monotonic()
    process.terminate()
    for pause in pauses:
        await asyncio.sleep(pause)
        process.terminate()
        since = time.monotonic()
    await asyncio.to_thread(process.wait, 60)
    return time.monotonic() - since


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hang", "steps"])
async def test_a_worker_ends_within_its_bound_when_the_network_is_silent(
    ledger: Ledger, database: str, kind: str
) -> None:
    run = await ledger.submit(kind)
    async with proxied(database) as proxy:
        with worker(proxy.url, "--grace", f"{GRACE}s") as process:
            await reached(ledger, run, State.RUNNING)
            proxy.swallow()
            assert await ending(process) < GRACE + END_SECONDS + SLACK

    assert process.returncode == UNFINISHED


@pytest.mark.slow
async def test_a_second_signal_ends_a_worker_at_once_when_the_network_is_silent(
    ledger: Ledger, database: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    run = await ledger.submit("hang")
    async with proxied(database) as proxy:
        with worker(proxy.url, "--grace", "1h", log=log) as process:
            await reached(ledger, run, State.RUNNING)
            proxy.swallow()
            assert await ending(process, 0.5) < HURRY_SECONDS + SLACK

    assert process.returncode == UNFINISHED
    assert said(log, names.ENDED_BY_FORCE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "pauses", "bound"),
    [
        (("projections", "run"), (), END_SECONDS),
        (("projections", "run"), (0.5,), HURRY_SECONDS),
    ],
)
async def test_a_duty_ends_within_its_bound_when_the_network_is_silent(
    database: str, words: tuple[str, ...], pauses: tuple[float, ...], bound: float
) -> None:
    async with proxied(database) as proxy:
        with started(proxy.url, *words, **FAST) as process:
            assert await asyncio.to_thread(_is_ready, process)
            proxy.swallow()
            await until(lambda: proxy.swallowed)
            assert await ending(process, *pauses) < bound + SLACK


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
    ledger: Ledger, database: str, kind: str
) -> None:
    run = await ledger.submit(kind)
    with worker(database, "--grace", f"{GRACE}s", settings=LONG) as process:
        await reached(ledger, run, State.RUNNING)
        assert await ending(process) < GRACE + END_SECONDS + SLACK

    after = await ledger.get(run.run_id)
    assert (after.state, after.attempt_count, process.returncode) == (State.PENDING, 0, 0)


@pytest.mark.slow
async def test_a_handler_that_blocks_the_loop_does_not_keep_the_process(
    ledger: Ledger, database: str
) -> None:
    run = await ledger.submit("blocks")
    with worker(database, "--grace", f"{GRACE}s") as process:
        await reached(ledger, run, State.RUNNING)
        assert await ending(process) < GRACE + END_SECONDS + SLACK
    assert process.returncode == UNFINISHED


@pytest.mark.slow
@pytest.mark.parametrize(
    ("grace", "pauses", "bound"),
    [(f"{GRACE}s", (), GRACE + END_SECONDS), ("1h", (0.5,), HURRY_SECONDS)],
)
async def test_a_process_ends_although_its_interpreter_is_frozen(
    ledger: Ledger, database: str, grace: str, pauses: tuple[float, ...], bound: float
) -> None:
    run = await ledger.submit("freezes", 3600)
    with worker(database, "--grace", grace) as process:
        await reached(ledger, run, State.RUNNING)
        watching = psutil.Process(process.pid).children()
        assert await ending(process, *pauses) < bound + SLACK
    assert process.returncode == -signal.SIGKILL
    assert psutil.wait_procs(watching, timeout=BOUND)[1] == []


@pytest.mark.slow
async def test_several_processes_end_although_one_of_them_is_frozen(
    ledger: Ledger, database: str
) -> None:
    run = await ledger.submit("freezes", 3600)
    with worker(database, "--grace", f"{GRACE}s", "--processes", "2") as fleet:
        await reached(ledger, run, State.RUNNING)
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
