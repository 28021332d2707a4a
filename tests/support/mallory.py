"""A superuser who damages a ledger behind its back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import pytest

from runfold.ledger import Ledger, State
from tests.support.databases import PROJECT
from tests.support.runs import claimed

LEAVES = (
    "SELECT c.oid::regclass::text AS leaf FROM pg_inherits AS i JOIN pg_class AS c "
    "ON c.oid = i.inhrelid WHERE i.inhparent = 'ledger.event'::regclass AND c.relkind = 'r'"
)


@pytest.fixture
async def open_ledger(unverified_database: str) -> AsyncIterator[Ledger]:
    """The ledger of a database that the test will damage."""
    async with Ledger.open(unverified_database, PROJECT) as opened:
        yield opened


class Mallory:
    """A superuser who switches every guard off before each statement."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def execute(self, statement: str, *args: object) -> None:
        """Execute a statement with every guard off."""
        leaves = [row["leaf"] for row in await self._connection.fetch(LEAVES)]
        for table in ("ledger.event", "ledger.payload", *leaves):
            await self._connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
        await self._connection.execute(statement, *args)


@pytest.fixture
async def mallory(unverified_database: str) -> AsyncIterator[Mallory]:
    """Mallory, at work on the database of the test."""
    opened = await asyncpg.connect(unverified_database)
    yield Mallory(opened)
    await opened.close()


async def six_events(ledger: Ledger) -> UUID:
    """Return a run of six events; other runs lie before and after it."""
    await claimed(ledger, "w:before", input="before")
    lease = await claimed(ledger, input={"path": "a.py"}, tags=["t"], deadline=3600, key="k")
    await ledger.heartbeat([lease])
    await ledger.transition(lease, State.WAITING_TOOL, name="wc", content={"input": "x"})
    await ledger.transition(lease, State.RUNNING, output="y", cost_usd_delta=1)
    await ledger.transition(lease, State.COMPLETED, output={"lines": 3})
    await claimed(ledger, "w:after", input="after")
    assert (await ledger.verify()).ok
    return lease.run_id


async def first_finding(ledger: Ledger, run_id: UUID) -> tuple[int | None, str]:
    """Return the first finding, which must be about this run, however one asks."""
    whole, one = await ledger.verify(), await ledger.verify(run_id)
    assert not whole.ok
    assert whole.findings[0] == one.findings[0]
    assert {finding.run_id for finding in whole.findings} == {run_id}
    for run in await ledger.runs():
        assert run.run_id == run_id or (await ledger.verify(run.run_id)).ok
    return one.findings[0].version, one.findings[0].problem
