"""Worker processes that are killed, frozen and cut off: nothing is lost or recorded twice."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import asyncpg
import psutil  # type: ignore[import-untyped]
import pytest

from runfold.ledger import Ledger, Run, State
from runfold.ledger.events import WriteRefused
from runfold.workers.forked_child import ENDED
from tests.support.processes import assert_story, worker
from tests.support.runs import types
from tests.support.waiting import BOUND, until
from tests.support.working import BRIEF, LONG, ended


@pytest.mark.slow
@pytest.mark.parametrize(
    ("point", "kind"),
    [("lease.acquired", "gated"), ("step.completed", "gated"), ("tool.requested", "gated_tool")],
)
async def test_a_worker_killed_at_any_point_loses_nothing(
    ledger: Ledger, database: str, tmp_path: Path, point: str, kind: str
) -> None:
    gate = tmp_path / "gate"
    run = await ledger.submit(kind, str(gate))
    with worker(database, "--no-reap", settings=BRIEF) as victim:

        async def there() -> bool:
            return any(event.type == point for event in await ledger.history(run.run_id))

        await until(there)
        victim.kill()
        victim.wait()
    await until(ledger.reap)
    gate.touch()
    with worker(database, settings=LONG):
        after = await ended(ledger, run)

    _, _, next_, *_ = await types(ledger, run.run_id)
    assert point == "lease.acquired" or next_ != "lease.expired"
    assert after.attempt_count == (1 if next_ == "lease.expired" else 2)  # charged once it is used
    await assert_story(ledger, run)


@pytest.mark.slow
async def test_a_frozen_worker_that_wakes_is_refused_and_the_refusal_is_recorded(
    ledger: Ledger, database: str, tmp_path: Path
) -> None:
    called = tmp_path / "called"
    run = await ledger.submit("hang")
    with worker(database, "--no-reap", settings={"TEST_CALLED": str(called)}) as zombie:
        await until(called.exists)
        zombie.send_signal(signal.SIGSTOP)
        await until(lambda: psutil.Process(zombie.pid).status() == psutil.STATUS_STOPPED)
        await until(ledger.reap)  # a beat that was on its way may have come after the stop
        (new,) = await ledger.claim("w:new", kinds=["hang"])
        zombie.send_signal(signal.SIGCONT)

        async def refused() -> bool:
            return any(
                isinstance(event, WriteRefused) for event in await ledger.history(run.run_id)
            )

        await until(refused)
        assert (await ledger.transition(new, State.COMPLETED, output="fresh")).output == "fresh"


async def test_every_connection_of_a_worker_may_be_cut(
    ledger: Ledger, database: str, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    runs = [await ledger.submit("steps") for _ in range(5)]
    async with ledger.pool.acquire() as own:
        mine = [await own.fetchval("SELECT pg_backend_pid()"), connection.get_server_pid()]

        async def cut() -> int:
            return int(await connection.fetchval(_CUT, mine))

        async def begun() -> bool:
            return bool(
                await own.fetchval("SELECT count(*) FROM ledger.run_state WHERE state <> 'pending'")
            )

        with worker(database, settings=LONG):
            await until(begun)
            for _ in range(5):
                await until(cut)
            await until(lambda: own.fetchval(_ALL_DONE))

    for run in runs:
        await assert_story(ledger, run)


_ALL_DONE = "SELECT bool_and(state = 'completed') FROM ledger.run_state"
_CUT = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'runfold%' AND pid <> ALL ($1::int[])
"""


@pytest.mark.slow
async def test_a_run_that_kills_its_worker_every_time_ends_failed_and_harms_no_other(
    ledger: Ledger, database: str
) -> None:
    poison = await ledger.submit("poison", max_attempts=2)
    with worker(database, "--processes", "2"):
        failed = await ended(ledger, poison)
        other = await ledger.submit("double", 4)
        assert (await ended(ledger, other)).output == 8

    assert (failed.state, failed.error_code, failed.attempt_count) == (State.FAILED, "E-RUN-002", 2)


async def are_over(ledger: Ledger, runs: Sequence[Run]) -> bool:
    """Reap, which no worker here does, and tell whether the runs have ended."""
    await ledger.reap()
    return all([(await ledger.get(run.run_id)).is_terminal for run in runs])


async def all_over(ledger: Ledger, database: str, *runs: Run) -> list[Run]:
    """Start worker processes one after another until the runs have ended; return the runs."""
    deadline = time.monotonic() + BOUND
    while not await are_over(ledger, runs):
        assert time.monotonic() < deadline
        # One process, which takes them all at once.
        with worker(database, "--no-reap", settings=BRIEF) as process:

            async def died_or_done(process: subprocess.Popen[bytes] = process) -> bool:
                return process.poll() is not None or await are_over(ledger, runs)

            await until(died_or_done)
    return [await ledger.get(run.run_id) for run in runs]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["poison", "stops", "cancels", "exits"])
async def test_a_run_that_ends_its_worker_every_time_takes_no_run_with_it(
    ledger: Ledger, database: str, kind: str
) -> None:
    poison = await ledger.submit(kind)
    others = [await ledger.submit("steps") for _ in range(4)]

    over = await all_over(ledger, database, poison, *others)

    assert [(run.state, run.error_code) for run in over] == [
        (State.FAILED, "E-RUN-002"),
        *[(State.COMPLETED, None)] * 4,
    ]


@pytest.mark.slow
async def test_runs_that_freeze_their_process_take_no_other_to_its_end(
    ledger: Ledger, database: str
) -> None:
    frozen = [await ledger.submit("freezes", 4) for _ in range(2)]
    # One charge for a freeze beside it, and one for a lease that a busy machine let lapse.
    others = [await ledger.submit("steps", max_attempts=3) for _ in range(12)]
    words = ("--processes", "2", "--concurrency", "6", "--no-reap")
    with worker(database, *words, settings=BRIEF):
        await until(lambda: are_over(ledger, [*others, *frozen]))

    over = [await ledger.get(run.run_id) for run in others]
    assert {(run.state, run.error_code) for run in over} == {(State.COMPLETED, None)}


async def test_a_process_that_a_handler_forks_may_be_ended_without_ending_the_worker(
    ledger: Ledger, database: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    run = await ledger.submit("forks")
    with worker(database, log=log, settings=LONG) as process:
        assert (await ended(ledger, run)).output == -signal.SIGTERM
        other = await ledger.submit("double", 4)
        assert (await ended(ledger, other)).output == 8
        assert process.poll() is None


async def test_a_process_that_a_handler_forks_does_not_go_on_as_a_second_worker(
    ledger: Ledger, database: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    runs = [
        await ledger.submit("splits"),
        *[await ledger.submit("splits_thread", calls) for calls in (0, 1)],
    ]
    with worker(database, log=log, settings=LONG):
        outputs = [(await ended(ledger, run)).output for run in runs]

    assert outputs == [[ENDED, 1], ENDED, ENDED]
    assert log.read_text().count("os._exit") == len(runs)


def test_a_fork_during_the_first_call_of_a_thread_fails_no_other_handler() -> None:
    """Whose lock would be released twice, if the module of threads were imported that late."""
    program = """
import os, runfold.workers.worker
os.register_at_fork(before=lambda: __import__("concurrent.futures.thread"))
if os.fork() == 0:
    os._exit(0)
os.wait()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert not done.stderr
