"""How tests are spread over processes, which of them are quick, and how a failure is reported."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

PROCESSES_PER_CORE = 2  # a test waits for a server or a process about half of its time
MOST_PROCESSES = 16  # each has a server of its own


def pytest_configure(config: pytest.Config) -> None:
    """Name the markers."""
    config.addinivalue_line("markers", "journey: the quick one of its file; else the first is")
    config.addinivalue_line("markers", "quick: set by the collection; `make test-fast` runs these")
    config.addinivalue_line("markers", "slow: takes seconds by its nature, so it is never quick")
    config.addinivalue_line("markers", "own_server: starts one without the fixtures")


def pytest_xdist_auto_num_workers() -> int:
    """Return how many processes `-n auto` starts."""
    return min(PROCESSES_PER_CORE * len(os.sched_getaffinity(0)), MOST_PROCESSES)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as quick every test without a server, and of the others one journey a file."""
    journeys: dict[str, pytest.Item] = {}
    for item in items:
        if item.get_closest_marker("slow"):
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
