"""A server of a test's own, which it may stop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from runfold.ledger import Ledger
from runfold.ledger.postgres import schema
from runfold.ledger.postgres.embedded.registry import EmbeddedPostgres
from tests.conftest import PROJECT
from tests.support.place import open_folder


@pytest.fixture
def own_server() -> Iterator[EmbeddedPostgres]:
    """A durable server of the test's own."""
    with open_folder() as folder, EmbeddedPostgres(folder / "home") as server:
        yield server


@pytest.fixture
async def own_ledger(own_server: EmbeddedPostgres) -> AsyncIterator[Ledger]:
    """A ledger on the server that the test will stop."""
    await schema.upgrade(own_server.url())
    async with Ledger.open(own_server.url(), PROJECT, create_project=True) as opened:
        yield opened
