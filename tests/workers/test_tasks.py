"""Tasks of a worker, and the end of its process where Python starts nothing more."""

from __future__ import annotations

import asyncio
import gc
import threading
import time

import pytest

from runfold.workers.process.last_resort import LastResort
from runfold.workers.tasks import Tasks
from tests.support.waiting import BOUND, until


def test_an_interrupt_in_a_task_ends_the_loop_and_not_whoever_started_it() -> None:
    went_on: list[str] = []
    complaints: list[str] = []

    async def interrupted() -> None:
        raise KeyboardInterrupt

    async def story() -> None:
        Tasks().start(interrupted())
        went_on.append("the one that started it")
        await asyncio.sleep(10)

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context["message"]))
    task = loop.create_task(story())
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(task)
    assert went_on == ["the one that started it"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()
    gc.collect()
    assert complaints == []


async def test_a_task_may_be_cancelled_before_it_begins() -> None:
    tasks = Tasks()
    tasks.start(asyncio.sleep(10))
    for task in tasks:
        task.cancel()
    await until(lambda: not tasks)
    gc.collect()  # of a coroutine that nobody awaited Python warns here, and a warning is an error


async def test_a_process_ends_by_force_though_no_thread_can_be_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended: list[int] = []
    last_resort = LastResort(ended.append)
    last_resort.within(0.2)

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", start)
    await until(lambda: ended == [5])


def test_a_process_ends_by_force_though_a_handler_stopped_the_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    over = threading.Event()
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)

    LastResort(lambda _: over.set()).within(0.1)

    assert over.wait(BOUND)
