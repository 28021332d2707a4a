"""A ledger moved to a cluster with lower transaction ids, where old events have ids to come."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from unittest.mock import AsyncMock

import asyncpg
import pytest

from runfold.console.cli.health.check import Level
from runfold.console.cli.health.schema_checks import feed as feed_check
from runfold.console.cli.health.server_checks import clock_steps
from runfold.ledger import Ledger
from runfold.ledger.operations.reap import pulse
from runfold.ledger.postgres.opening import Database
from runfold.ledger.reading import feed
from runfold.ledger.reading.feed import Checkpoint
from runfold.projections import install
from runfold.projections.declared.exchange import catch_up, replace_table
from runfold.projections.declared.refold import NOBODY, plan
from runfold.projections.rebuild import Rebuild
from runfold.projections.state import drift
from tests.support.clock import set_clock
from tests.support.projections import read, sizes, sizes_of

pytestmark = pytest.mark.new_database

HOUR = timedelta(hours=1)
MOVE = """
DO $$ DECLARE leaf regclass; BEGIN
  FOR leaf IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'ledger.event'::regclass LOOP
    EXECUTE format('ALTER TABLE %s DISABLE TRIGGER refuse_change', leaf);
    EXECUTE format('UPDATE %s SET txid = ({first} + position)::text::xid8', leaf);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER refuse_change', leaf);
  END LOOP;
  PERFORM ledger.feed_rebase();
END $$
"""
"""Leaves the events as they come from another cluster, with an id for each of them."""
LOWER, MOVED = MOVE.format(first=3), MOVE.format(first=10**9)
"""From a cluster that handed out few ids, and from one that handed out many."""
NEWEST = """
SELECT txid::text, position, left(encode(hash, 'hex'), 16) AS hash FROM ledger.event
ORDER BY position DESC LIMIT 1
"""
HANDED_OUT = """
DO $$ BEGIN FOR n IN 1..6000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$
"""


READ = """
SELECT sum(pg_stat_get_xact_blocks_fetched(oid))::bigint FROM pg_class
WHERE relnamespace = 'ledger'::regnamespace
"""
"""Without the catalog's blocks, which a session reads anew when others change roles."""


async def blocks(connection: asyncpg.Connection[Any], statement: str) -> int:
    """Count the blocks of the ledger that a statement reads: the least of three, once planned."""
    counted: list[int] = []
    for _ in range(3):
        async with connection.transaction():
            before = await connection.fetchval(READ)
            await connection.fetch(statement)
            counted.append(await connection.fetchval(READ) - before)
    return min(counted)


async def test_new_events_are_the_newest_though_old_ones_have_higher_ids(
    ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    await ledger.submit_many([{"kind": "parse"}] * 200)
    await connection.execute(MOVED)
    await set_clock(connection, HOUR)
    new = await ledger.submit("parse")

    found = await connection.fetchval("SELECT run_id FROM ledger.newest_events(1)")
    assert found == new.run_id
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drift, "compare", compare := AsyncMock(return_value=[]))
        await drift.sample(ledger, 2)
    assert new.run_id in compare.await_args_list[0].args[1]

    await set_clock(connection, timedelta())
    health = Database(ledger.pool, "", embedded=True)
    assert (await clock_steps(health)).level is Level.FAILED
    await pulse(ledger.project, None)
    assert await connection.fetchval("SELECT ledger.now()") >= new.created_at
    assert (await clock_steps(health)).level is Level.WARNING
    assert (await feed_check(health)).detail == "position 201"


async def test_the_feed_looks_at_few_events_of_earlier_generations_whatever_their_ids(
    ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    statements = (
        "SELECT ledger.check_cluster()",
        "SELECT ledger.feed_now()",
        "SELECT * FROM ledger.newest_events(10)",
    )
    await connection.execute(HANDED_OUT)
    await ledger.submit_many([{"kind": "parse"}] * 5_000)
    for moved in (LOWER, MOVED):
        await connection.execute(moved)
        await connection.execute("VACUUM ledger.event, ledger.feed_generation")
        read = [await blocks(connection, statement) for statement in statements]
        assert max(read) < 40, read
    checkpoint = await feed.now(ledger.pool)
    await ledger.submit("parse")
    assert await feed.towards(ledger.pool, checkpoint, 10) is not None


async def test_a_rebuild_that_goes_on_in_another_cluster_folds_no_event_twice(
    ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    """There, new events have ids that were handed out in the old cluster before it began."""
    await install(ledger.pool, sizes())
    await read(ledger, (await ledger.submit("parse")).run_id, "4")
    await connection.execute(MOVED)
    [newest] = await connection.fetch(NEWEST)
    xmax = int(newest["txid"]) + 1
    begun = f"1/{xmax}:{xmax}:@{newest['position']}@{newest['hash']}//0"
    await read(ledger, (await ledger.submit("parse")).run_id, "5")

    way = plan(sizes(), Checkpoint.parse(begun))
    async with Rebuild.begin(ledger.pool, way) as rebuild:
        await rebuild.fill(1)
        here = await catch_up(ledger.pool, rebuild, sizes())
        await replace_table(ledger.pool, rebuild, sizes(), here, NOBODY)

    assert await sizes_of(ledger) == [("parse", 2, 9)]
