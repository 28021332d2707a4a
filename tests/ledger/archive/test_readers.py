"""Readers of the feed beside the archive: what they have passed may leave, and come back."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest

from runfold.ledger import Ledger
from runfold.ledger.reading import feed
from tests.support.archiving import WHY, archived, ended
from tests.support.feeding import Reader
from tests.support.past_month import MONTH, in_that_month


@pytest.mark.parametrize("is_all", [True, False], ids=["all events", "the newest events"])
async def test_who_has_read_what_leaves_goes_on_where_it_was(
    ledger: Ledger, connection: asyncpg.Connection, tmp_path: Path, *, is_all: bool
) -> None:
    if not is_all:
        await ledger.submit("older")
    async with in_that_month(connection):
        await ended(ledger)
    live, begun = Reader(ledger.pool), Reader(ledger.pool)
    await live.drain()
    passed = len(live.keys)

    await archived(ledger, tmp_path)
    begun.checkpoint = await feed.now(ledger.pool)
    for reader in (live, begun):
        await reader.drain()
        assert not await reader.page(), "there is no end of what is new"
    new = await ledger.submit("new")
    for reader in (live, begun):
        await reader.drain()
        assert reader.keys[-1] == (new.run_id, 1)
    await ledger.archive.attach(MONTH, **WHY)
    again = await ledger.submit("again")
    for reader, before in ((live, passed), (begun, 0)):
        await reader.drain()
        assert reader.keys[before:] == [(new.run_id, 1), (again.run_id, 1)]


async def test_a_moment_without_a_hash_is_known_when_its_events_are_back(
    ledger: Ledger, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    async with in_that_month(connection):
        await ended(ledger)
    await archived(ledger, tmp_path)
    begun = Reader(ledger.pool)
    begun.checkpoint = await feed.now(ledger.pool)

    await ledger.archive.attach(MONTH, **WHY)
    new = await ledger.submit("new")
    await begun.drain()

    assert begun.keys == [(new.run_id, 1)]


async def test_a_month_of_an_earlier_generation_is_no_place_in_a_later_one(
    ledger: Ledger, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    async with in_that_month(connection):
        await ended(ledger)
    await archived(ledger, tmp_path)
    await connection.execute("SELECT ledger.feed_rebase()")
    begun = Reader(ledger.pool)
    begun.checkpoint = await feed.now(ledger.pool)

    assert not await begun.page()
    new = await ledger.submit("new")
    await begun.drain()

    assert begun.keys == [(new.run_id, 1)]
