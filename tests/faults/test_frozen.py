"""Processes of a fleet that are frozen: replaced, unless their parent was frozen too."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest

from runfold.ledger import Ledger, names
from runfold.workers.process import beginning
from runfold.workers.process import fleet as fleets
from runfold.workers.process.fleet import Fleet, Part, silence_of
from tests.support.databases import PROJECT
from tests.support.waiting import BOUND, until
from tests.support.working import ended

WORKER = Part("worker", ["worker", "tests.support.handlers", "--project", PROJECT])
SILENCE = 8.0
"""Longer than a busy machine lets a process wait for its turn."""


class Small(Fleet):
    """A fleet of one worker, which a test can end."""

    def __init__(self, database: str) -> None:
        super().__init__([WORKER], {"RUNFOLD_URL": database}, silence=SILENCE)

    @property
    def pids(self) -> list[int]:
        """Those of its processes."""
        return [process.pid for process in self._alive]

    def end(self) -> None:
        """Tell it to end."""
        self._pass_on()


@asynccontextmanager
async def small(database: str, ledger: Ledger) -> AsyncIterator[tuple[Small, psutil.Process]]:
    """Have a fleet whose worker is at work; yield it and the worker's process."""
    fleet = Small(database)
    running = asyncio.create_task(fleet.run())
    try:
        assert (await ended(ledger, await ledger.submit("double", 4))).output == 8
        (pid,) = fleet.pids
        yield fleet, psutil.Process(pid)
        fleet.end()
        await asyncio.wait_for(running, BOUND)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.slow
async def test_a_process_that_is_frozen_is_killed_named_and_replaced(
    database: str, ledger: Ledger, capfd: pytest.CaptureFixture[str]
) -> None:
    async with small(database, ledger) as (_, frozen):
        frozen.suspend()
        run = await ledger.submit("double", 2)
        assert (await ended(ledger, run)).output == 4  # by its successor: nobody else is there
        assert not frozen.is_running()
    said = [line for line in capfd.readouterr().err.splitlines() if names.PROCESS_SILENT in line]
    assert any(f"pid={frozen.pid}" in line for line in said)


@pytest.mark.slow
async def test_a_process_that_was_frozen_together_with_its_parent_is_left_alone(
    database: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleets, "LOOK_SECONDS", 0.1)
    async with small(database, ledger) as (fleet, paused):
        paused.suspend()
        await until(lambda: paused.status() == psutil.STATUS_STOPPED)
        time.sleep(SILENCE + 1)  # noqa: ASYNC251  the parent is frozen: its loop stands still
        paused.resume()
        assert (await ended(ledger, await ledger.submit("double", 2))).output == 4
        assert fleet.pids == [paused.pid]


class Stopped:
    """A process that does nothing until it is killed."""

    pid = 0

    def __init__(self) -> None:
        self.killed = asyncio.Event()

    async def wait(self) -> int:
        """Return its exit code."""
        await self.killed.wait()
        return -9

    def kill(self) -> None:
        """End it."""
        self.killed.set()


class Counted(beginning.Telling):
    """What it has told, and how often that was looked at."""

    looks = 0

    def hear(self) -> bool:
        """Count."""
        self.looks += 1
        return super().hear()


@pytest.mark.parametrize(("told", "looks"), [(b"\n", 7), (b"", 51)])
async def test_a_process_has_longer_until_it_has_begun(
    told: bytes, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = 2.0**-7  # sums of it are exact
    monkeypatch.setattr(fleets, "LOOK_SECONDS", look)
    reading, writing = os.pipe()
    os.write(writing, told)
    counted = Counted(reading)
    process: Any = Stopped()

    code = await Fleet([WORKER], silence=5 * look)._outlived(WORKER, process, counted)  # noqa: SLF001

    assert (code, counted.looks) == (-9, looks)
    os.close(writing)
    os.close(reading)


def test_a_process_is_frozen_when_its_leases_have_lapsed_and_not_before_a_minute() -> None:
    assert (silence_of(1), silence_of(60)) == (60, 120)
