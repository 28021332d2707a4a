"""Months to archive, and files of archived ones to damage."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from runfold.ledger import Ledger, State
from runfold.ledger.events import NoteAdded
from runfold.ledger.postgres.urls import driver_url
from tests.support.past_month import MONTH
from tests.support.runs import claimed

WHY: dict[str, Any] = {"actor": "auditor", "reason": "retention"}


async def ended(ledger: Ledger, outcome: State = State.COMPLETED, **submit: Any) -> UUID:
    """Bring a run with beats, a note and costs to its end."""
    lease = await claimed(
        ledger, input={"path": "a.py", "n": [1, "ü"]}, tags=("nightly",), **submit
    )
    [lease] = await ledger.heartbeat([lease])
    await ledger.append(lease, NoteAdded(name="half", text="way"))
    await ledger.transition(
        lease, outcome, output={"lines": 3}, cost_usd_delta=0.25, step_count_delta=2
    )
    return lease.run_id


async def archived(ledger: Ledger, folder: Path) -> None:
    """Export and detach the month."""
    await ledger.archive.export(MONTH, folder, **WHY)
    await ledger.archive.detach(MONTH, **WHY)


@pytest.fixture
async def damaging(unverified_database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to a database that the test will damage."""
    opened = await asyncpg.connect(driver_url(unverified_database))
    yield opened
    await opened.close()


async def rows(connection: asyncpg.Connection, table: str) -> list[Any]:
    """Return every row of a table of events or payloads."""
    return await connection.fetch(
        f"SELECT t.*::text FROM ledger.{table} AS t ORDER BY project_id, run_id, version"
    )


async def state_of(ledger: Ledger) -> str:
    """Return the status of the month."""
    [month] = [one for one in await ledger.archive.months() if one.month == MONTH]
    return month.state
