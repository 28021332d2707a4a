"""A standby's snapshot does not list what is in progress: the feed refuses to lose events."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from runfold.ledger import Ledger
from runfold.ledger.errors import FeedOnStandby
from runfold.ledger.postgres import schema
from runfold.ledger.postgres.embedded.postgres import EmbeddedPostgres
from runfold.ledger.postgres.embedded.store import UNSAFE
from runfold.ledger.reading import feed
from tests.support.feeding import Reader
from tests.support.server import ROOM
from tests.support.server_folder import open_folder


@pytest.fixture
def standby() -> Iterator[str]:
    """The URL of a server in recovery, whose database has a run."""
    with open_folder() as folder:
        with EmbeddedPostgres(folder, settings=ROOM | UNSAFE) as postgres:
            asyncio.run(submitted(postgres.url()))
        [data] = [path.parent for path in folder.rglob("postgresql.conf")]
        (data / "standby.signal").touch()
        with EmbeddedPostgres(folder, settings=ROOM | UNSAFE) as postgres:
            yield postgres.url()


async def submitted(url: str) -> None:
    """Submit a run to a database that is migrated first."""
    await schema.upgrade(url)
    async with Ledger.open(url, "default", create_project=True) as ledger:
        await ledger.submit("parse")


@pytest.mark.slow
async def test_a_standby_reads_runs_and_refuses_the_feed(standby: str) -> None:
    async with Ledger.open(standby, "default") as ledger:
        assert len(await ledger.runs()) == 1
        with pytest.raises(FeedOnStandby, match="standby"):
            await Reader(ledger.pool).drain()
        with pytest.raises(FeedOnStandby):
            await feed.now(ledger.pool)
