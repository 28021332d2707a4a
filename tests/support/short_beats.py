"""What tests of waits share: a ledger whose workers beat often, and runs that wait."""

from __future__ import annotations

from typing import Any

import pytest

from runfold.ledger import Ledger, Run
from runfold.workers import (
    Context,
    handler,
)


@handler("square")
async def square(ctx: Context, number: int) -> int:
    return number * number


@pytest.fixture
def short_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a long sleep be one of more than a fifth of a second."""
    monkeypatch.setenv("RUNFOLD_HEARTBEAT_SECONDS", "0.2")
    monkeypatch.setenv("RUNFOLD_LEASE_TTL_SECONDS", "60")


@pytest.fixture
async def ledger(short_beats: None, database: str) -> Any:
    """The ledger of the project `test`, under those settings."""
    async with Ledger.open(database, "test") as opened:
        yield opened


async def parked(ledger: Ledger, run: Run) -> bool:
    """Whether the run waits and nobody holds it."""
    return (await ledger.get(run.run_id)).is_parked
