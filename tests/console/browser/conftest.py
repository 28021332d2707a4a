"""One browser, one server and one filled project for all tests in a real browser."""

from __future__ import annotations

import asyncio
import os
import shutil
import uuid
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

from tests.console.browser.serving import Served
from tests.support.databases import assert_consistent, with_database
from tests.support.server import Server
from tests.support.waiting import BOUND

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
)  # fmt: skip
WIDE: ViewportSize = {"width": 1280, "height": 800}
NARROW: ViewportSize = {"width": 360, "height": 740}


PROGRAMS = ("chromium-headless-shell", "chromium")
"""Debian's; the first is the same engine without a window, and takes a third less of CPU."""


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of Debian's Chromium; without it the tests are skipped, but never in CI."""
    found = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if found is None and not os.environ.get("CI"):
        pytest.skip(f"Chromium is not installed: apt-get install {PROGRAMS[0]}")
    assert found, "Chromium is not installed, and CI must try the pages in a browser"
    return found


@pytest.fixture(scope="module")
def served(
    chromium: str,
    server: Server,
    maintenance: Callable[[str], None],
    template: str,
) -> Iterator[Served]:
    """The console of a project with a past."""
    name = f"browser_{uuid.uuid4().hex[:12]}"
    maintenance(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    url = with_database(server.url, name)
    with Served(url).running() as running:
        yield running
    asyncio.run(assert_consistent(url))
    maintenance(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def browser(chromium: str, served: Served) -> Iterator[Browser]:
    """The browser; it is closed before the server.

    Not for the session: while it is open, this thread has a running loop, and no other test can
    begin one.
    """
    expect.set_options(timeout=BOUND * 1_000)  # a busy machine is slow, not wrong
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Browser, served: Served) -> Iterator[Page]:
    """A page of the open console that fails the test for what its console says."""
    context = browser.new_context(
        base_url=served.open, viewport=WIDE, timezone_id="Europe/Berlin", color_scheme="light"
    )
    context.set_default_timeout(BOUND * 1_000)
    opened = context.new_page()
    faults = watched(opened)
    yield opened
    context.close()
    assert faults == []


def watched(page: Page) -> list[str]:
    """Return a list that takes the errors of a page: of scripts, and of the policy."""
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on(
        "console",
        lambda said: faults.append(said.text) if said.type in {"error", "warning"} else None,
    )
    return faults
