"""The application over a test's ledger, called without a network."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from runfold.console.web import app
from runfold.console.web.options import Options
from runfold.ledger import Ledger
from tests.support.web import calling


@pytest.fixture
async def web(ledger: Ledger) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server that is open to this machine."""
    async with calling(app(ledger, Options(open=True))) as client:
        yield client
