"""Reading the feed to its end, in a test."""

from __future__ import annotations

from typing import Any

from runfold.ledger.events import Event
from runfold.ledger.postgres.connections import Connection, Pool
from runfold.ledger.reading import feed
from runfold.ledger.reading.feed import Checkpoint, Filter

ALL = Filter()


class Reader:
    """Reads the feed page by page and keeps what it was given."""

    def __init__(self, source: Pool | Connection, limit: int = 1_000, which: Filter = ALL) -> None:
        self.source, self.limit, self.which = source, limit, which
        self.checkpoint = Checkpoint()
        self.events: list[Event] = []

    async def page(self) -> bool:
        """Read one page; tell whether there was anything to read."""
        towards = await feed.towards(self.source, self.checkpoint, self.limit)
        if towards is None:
            return False
        page, self.checkpoint = await feed.read(self.source, towards, self.limit, self.which)
        assert len(page) <= self.limit
        # As it would be kept in a database: nothing else may be needed to go on.
        self.checkpoint = Checkpoint.parse(str(self.checkpoint))
        self.events += page
        return True

    async def drain(self) -> list[Event]:
        """Read until nothing is new; give all that was read so far."""
        while await self.page():
            pass
        return self.events

    @property
    def keys(self) -> list[tuple[Any, int]]:
        """The run and version of every event that was read."""
        return [(event.run_id, event.version) for event in self.events]


def assert_complete(reader: Reader, stored: list[tuple[Any, int]]) -> None:
    """Fail unless the reader was given every stored event exactly once, and each run's in order."""
    assert len(reader.keys) == len(set(reader.keys)), "an event was given twice"
    assert set(reader.keys) == set(stored), "events were lost, or given that do not exist"
    newest: dict[Any, int] = {}
    for run_id, version in reader.keys:
        assert version == newest.get(run_id, 0) + 1, "a run's events came out of order"
        newest[run_id] = version


async def stored(source: Pool) -> list[tuple[Any, int]]:
    """Name every event of the database."""
    return [
        (row["run_id"], row["version"])
        for row in await source.fetch("SELECT run_id, version FROM ledger.event")
    ]
