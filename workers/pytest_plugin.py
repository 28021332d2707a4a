"""The pytest plugin: the fixture `runfold` is a ledger for one test; see `runfold.workers.testing`.

Every pytest of an environment that has Runfold loads this module. So the kit is imported where a
test asks for it: the workers take half a second.
"""

# ruff: noqa: PLC0415  imports where a test asks for the kit, as said above

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from runfold.workers.testing import Kit


@pytest.fixture(scope="session")
def runfold_server() -> Iterator[str]:
    """The URL of a test server: RUNFOLD_TEST_URL (its login makes databases), or a built-in one."""
    from runfold.workers.testing import kit_server

    with kit_server() as url:
        yield url


@pytest.fixture(scope="session")
def runfold_template(runfold_server: str) -> Iterator[str]:
    """The name of a migrated database, to be copied for each test."""
    from runfold.workers.testing import migrated

    with migrated(runfold_server) as name:
        yield name


@pytest.fixture
def runfold(runfold_server: str, runfold_template: str) -> Iterator[Kit]:
    """A ledger in a database of its own."""
    from runfold.workers.testing import copied

    with copied(runfold_server, runfold_template) as kit:
        yield kit
