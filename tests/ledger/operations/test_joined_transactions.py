"""Submitting within the caller's own transaction: a run shares its fate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from runfold.ledger import Ledger, Submit
from runfold.ledger.errors import (
    DatabaseRefused,
    DuplicateKey,
    RunNotFound,
)
from tests.ledger.operations.test_submit import ODD_TAGS
from tests.support.databases import sqlalchemy_url
from tests.support.runs import event_count
from tests.support.waiting import blocked


@pytest.fixture
async def engine(database: str) -> AsyncIterator[AsyncEngine]:
    made = create_async_engine(sqlalchemy_url(database))
    yield made
    await made.dispose()


async def test_a_run_submitted_in_an_asyncpg_transaction_exists_when_that_commits(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    async with connection.transaction():
        run = await ledger.submit(
            "parse", {"a": 1}, key="k", tags=["t"], delay=1, connection=connection
        )
        with pytest.raises(RunNotFound):
            await ledger.get(run.run_id)

    assert await ledger.get(run.run_id) == run


async def test_a_run_submitted_in_an_asyncpg_transaction_never_was_when_that_rolls_back(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    transaction = connection.transaction()
    await transaction.start()
    run = await ledger.submit("parse", key="k", connection=connection)
    many = await ledger.submit_many([Submit(kind="parse")] * 3, connection=connection)
    await transaction.rollback()

    assert len(many) == 3
    with pytest.raises(RunNotFound):
        await ledger.get(run.run_id)
    assert await event_count(ledger) == 0
    assert (await ledger.submit("other", key="k")).kind == "other"


async def test_a_savepoint_takes_back_only_what_was_submitted_in_it(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    async with connection.transaction():
        kept = await ledger.submit("parse", key="kept", connection=connection)
        savepoint = connection.transaction()
        await savepoint.start()
        await ledger.submit("parse", key="dropped", connection=connection)
        await savepoint.rollback()

    assert [run.run_id for run in await ledger.runs()] == [kept.run_id]


async def test_a_run_submitted_on_a_sqlalchemy_connection_exists_when_that_commits(
    ledger: Ledger, engine: AsyncEngine
) -> None:
    async with engine.begin() as joined:
        run = await ledger.submit(
            "parse",
            {"a": ["%s", ":x", "$1"]},
            key="k",
            tags=ODD_TAGS,
            delay=1,
            deadline=60,
            connection=joined,
        )
        many = await ledger.submit_many(
            [Submit(kind="parse", input=i) for i in range(3)], connection=joined
        )
        with pytest.raises(RunNotFound):
            await ledger.get(run.run_id)

    assert await ledger.get(run.run_id) == run
    assert [(await ledger.get(one.run_id)).input for one in many] == [0, 1, 2]


async def test_a_run_submitted_on_a_sqlalchemy_connection_never_was_when_that_rolls_back(
    ledger: Ledger, engine: AsyncEngine
) -> None:
    async with engine.connect() as joined:
        run = await ledger.submit("parse", connection=joined)
        assert await joined.scalar(text("SELECT count(*) FROM ledger.event")) == 1
        await joined.rollback()

    with pytest.raises(RunNotFound):
        await ledger.get(run.run_id)


async def test_a_run_submitted_in_a_session_shares_its_fate(
    ledger: Ledger, engine: AsyncEngine
) -> None:
    async with AsyncSession(engine) as session, session.begin():
        kept = await ledger.submit("parse", key="kept", connection=session)
    async with AsyncSession(engine) as session:
        await ledger.submit("parse", key="dropped", connection=session)
        await session.rollback()

    assert [run.run_id for run in await ledger.runs()] == [kept.run_id]


async def test_errors_on_a_joined_connection_are_the_same_as_on_the_ledgers_own(
    ledger: Ledger, engine: AsyncEngine, connection: asyncpg.Connection
) -> None:
    first = await ledger.submit("parse", key="k")

    async with engine.connect() as joined:
        with pytest.raises(DuplicateKey) as by_sqlalchemy:
            await ledger.submit("parse", 2, key="k", connection=joined)
    async with connection.transaction():
        with pytest.raises(DuplicateKey) as by_asyncpg:
            async with connection.transaction():
                await ledger.submit("parse", 2, key="k", connection=connection)

    assert by_sqlalchemy.value.run_id == by_asyncpg.value.run_id == first.run_id
    assert by_sqlalchemy.value.key == by_asyncpg.value.key == "k"


async def test_an_open_transaction_holds_up_no_other_submit_but_one_with_its_key(
    ledger: Ledger, connection: asyncpg.Connection, database: str
) -> None:
    await ledger.submit("parse")
    waiter = await asyncpg.connect(database)
    async with connection.transaction():
        mine = await ledger.submit("parse", 1, key="k", connection=connection)
        await ledger.submit("parse", 2, key="other")
        (lease,) = await ledger.claim("w:1", limit=1)
        late = asyncio.create_task(ledger.submit("parse", 1, key="k", connection=waiter))
        await blocked(ledger, waiter.get_server_pid())
    same = await late
    await waiter.close()

    assert same.run_id == mine.run_id
    assert lease.run_id != mine.run_id
    assert await event_count(ledger) == 4


async def test_an_open_transaction_that_brought_a_new_kind_holds_up_nobody_who_brings_it_too(
    ledger: Ledger, connection: asyncpg.Connection, database: str
) -> None:
    impatient = await asyncpg.connect(database, server_settings={"lock_timeout": "500ms"})
    async with connection.transaction():
        await ledger.submit("brand-new", connection=connection)
        try:
            second = await ledger.submit("brand-new", connection=impatient)
        except DatabaseRefused as error:
            pytest.fail(
                f"a caller's open transaction blocks every submit of the same new kind: {error}"
            )
        finally:
            await impatient.close()

    assert (await ledger.get(second.run_id)).kind == "brand-new"
