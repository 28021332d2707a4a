"""The order of tests over processes, which of them are quick, and how a failure is reported."""

from __future__ import annotations

import importlib
import os
from collections.abc import Generator, Sequence
from itertools import islice
from typing import Any
from zlib import crc32

import pytest
from xdist.scheduler import (  # type: ignore[import-untyped]  # it ships no types
    LoadScopeScheduling,
)

from tests.support.forked import spare_what_is_loaded

PROCESSES_PER_CORE = 3  # a test waits for a server or a process much of its time
MOST_PROCESSES = 16  # each has a server of its own
SLOW_PART = 0.7
"""The part of the tests among which the slow ones are spread: the last to begin has time to end."""
IN_ONE_PROCESS = (
    "tests/packaging/",
    "tests/docs/test_documents.py",
    "tests/console/test_demo.py",
    "tests/console/browser/",
    "tests/ledger/postgres/test_embedded.py",
    "tests/ledger/reading/test_feed_restore.py",
)
"""Tests that share what takes seconds to make: a wheel in its environment, or a server."""


def pytest_configure(config: pytest.Config) -> None:
    """Name the markers."""
    config.addinivalue_line("markers", "journey: the quick one of its file; else the first is")
    config.addinivalue_line("markers", "quick: set by the collection; `make test-fast` runs these")
    config.addinivalue_line("markers", "slow: takes seconds by its nature, so it is never quick")
    config.addinivalue_line("markers", "new_database: is about what nobody used, or a plan meets")
    config.addinivalue_line("markers", "own_server: starts one without the fixtures")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Import this process's share of the tests, and so compile it for the other processes.

    All of them take 5 s of CPU to compile: too much for each process to do it alone.
    """
    spare_what_is_loaded()
    worker = getattr(session.config, "workerinput", None)  # set by xdist
    if worker is None:
        return
    number, processes = int(worker["workerid"].removeprefix("gw")), worker["workercount"]
    root = session.config.rootpath
    folders = [root / argument for argument in session.config.args]
    tests = sorted({test for folder in folders for test in folder.rglob("test_*.py")})
    for test in tests[number::processes]:
        importlib.import_module(".".join(test.relative_to(root).with_suffix("").parts))


def pytest_xdist_auto_num_workers() -> int:
    """Return how many processes `-n auto` starts."""
    return min(PROCESSES_PER_CORE * len(os.sched_getaffinity(0)), MOST_PROCESSES)


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist ships no types
    """Give each process one test after the other, and what shares a start to one process."""

    def _split_scope(self, nodeid: str) -> str:
        shared = (start for start in IN_ONE_PROCESS if nodeid.startswith(start))
        return next(shared, nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling | None:
    """Return the scheduler of `--dist loadscope`."""
    return Scheduling(config, log) if config.getoption("dist") == "loadscope" else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the quick tests; where several processes run them, spread the slow ones over the rest.

    Slow tests mostly wait, and those of one file wait at once: they are parted, so that quick ones
    run meanwhile. None is among the last.
    """
    _mark_quick(items)
    if hasattr(config, "workerinput"):  # set by xdist, and the same order in each process
        together = [item for item in items if item.nodeid.startswith(IN_ONE_PROCESS)]
        others = [item for item in items if not item.nodeid.startswith(IN_ONE_PROCESS)]
        items[:] = [*together, *_spread(others)]


def _spread(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    slow = sorted(filter(is_slow, items), key=lambda item: crc32(item.nodeid.encode()))
    rest = iter([item for item in items if not is_slow(item)])
    between = int(SLOW_PART * (len(items) - len(slow)) / max(len(slow), 1))
    return [*(item for each in slow for item in (each, *islice(rest, between))), *rest]


def pytest_collection_finish() -> None:
    """Let the collector of garbage pass over the tests, too, which stay to the end."""
    spare_what_is_loaded()


def is_slow(item: pytest.Item) -> bool:
    """Whether a test is marked as one that takes seconds."""
    return item.get_closest_marker("slow") is not None


def _mark_quick(items: list[pytest.Item]) -> None:
    """Mark as quick every test without a server, and of the others one journey a file."""
    journeys: dict[str, pytest.Item] = {}
    for item in items:
        if is_slow(item):
            continue
        if not needs_server(item):
            item.add_marker("quick")
        elif item.get_closest_marker("journey"):
            journeys[item.nodeid.partition("::")[0]] = item
        else:
            journeys.setdefault(item.nodeid.partition("::")[0], item)
    for item in journeys.values():
        item.add_marker("quick")


def needs_server(item: pytest.Item) -> bool:
    """Whether a test starts a server, or uses the session's."""
    fixtures = {"server", "own_server"} & set(getattr(item, "fixturenames", ()))
    return bool(fixtures) or item.get_closest_marker("own_server") is not None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Report a failure without its source if the interpreter cannot parse that source now.

    CPython 3.11 may raise SystemError from `ast.parse` after a recursion that was too deep. Without
    this, one such failure ends the whole session.
    """
    try:
        return (yield)
    except SystemError:
        style, item.config.option.tbstyle = item.config.option.tbstyle, "native"
        try:
            return pytest.TestReport.from_item_and_call(item, call)
        finally:
            item.config.option.tbstyle = style
