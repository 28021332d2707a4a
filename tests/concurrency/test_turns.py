"""Claims of the same kinds take turns: a crowd does not get in its own way, and nobody starves."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import asyncpg
import pytest

from runfold.ledger import Ledger
from runfold.ledger.postgres.urls import driver_url
from tests.support.databases import PROJECT
from tests.support.waiting import BOUND, awaited, passed

CLAIM: Final = "SELECT run_id FROM ledger.claim($1, 'w:open', $2, 1, '60 s')"
TAKE_THE_OTHERS: Final = """
SELECT pg_try_advisory_xact_lock((classid::bigint << 32 | objid::bigint) # turn)
FROM pg_locks, generate_series(0, 31) AS turn
WHERE locktype = 'advisory' AND pid = pg_backend_pid()
"""
"""For a transaction that has claimed once: what 31 claims beside it would hold."""
PATIENT: Final = "ALTER FUNCTION ledger.await_turn SET lock_timeout = '{}'"


async def take_all_turns(connection: asyncpg.Connection[Any], kind: str) -> None:
    """Hold the turns of a kind until the transaction ends."""
    await connection.fetch(CLAIM, PROJECT, [kind])
    assert [row[0] for row in await connection.fetch(TAKE_THE_OTHERS)] == [True] * 32


async def test_a_claim_waits_for_a_turn_while_all_are_taken(
    ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    await connection.execute(PATIENT.format(f"{BOUND}s"))
    first, second = await ledger.submit_many([{"kind": "parse"}] * 2)
    async with connection.transaction():
        await take_all_turns(connection, "parse")
        waiting = asyncio.create_task(ledger.claim("w:1", kinds=["parse"]))
        await awaited(connection)

    assert [lease.run_id for lease in await waiting] == [second.run_id]
    assert (await ledger.get(first.run_id)).state == "running"


async def test_a_claim_goes_on_without_a_turn_where_none_becomes_free(
    ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    _, second = await ledger.submit_many([{"kind": "parse"}] * 2)
    async with connection.transaction():
        await take_all_turns(connection, "parse")

        assert [lease.run_id for lease in await ledger.claim("w:1", kinds=["parse"])] == [
            second.run_id
        ]


async def test_what_came_due_while_a_claim_waited_for_its_turn_is_taken(
    ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    await connection.execute(PATIENT.format(f"{BOUND}s"))
    later = await ledger.submit("parse", delay=1)
    async with connection.transaction():
        await take_all_turns(connection, "parse")
        waiting = asyncio.create_task(ledger.claim("w:1", kinds=["parse"]))
        await awaited(connection)
        await passed(ledger, later.available_at)

    assert [lease.run_id for lease in await waiting] == [later.run_id]


async def test_turns_are_those_of_kinds_and_of_a_project(
    ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    await connection.execute(PATIENT.format("1h"))
    await connection.execute("INSERT INTO ledger.project VALUES ('other')")
    await ledger.submit_many([{"kind": "parse"}, {"kind": "index"}, {"kind": "index"}])
    async with connection.transaction(), asyncio.timeout(BOUND):
        await take_all_turns(connection, "parse")

        assert len(await ledger.claim("w:1", kinds=["index"])) == 1
        assert len(await ledger.claim("w:1")) == 1
        assert await ledger.pool.fetch(CLAIM, "other", ["parse"]) == []


@pytest.mark.parametrize("deadlock_timeout", ["10ms", "1s"])
async def test_transactions_that_claim_twice_in_two_orders_both_go_on(
    database: str, ledger: Ledger, connection: asyncpg.Connection[Any], deadlock_timeout: str
) -> None:
    await ledger.submit_many([{"kind": "parse"}] * 2 + [{"kind": "index"}] * 2)
    other = await asyncpg.connect(driver_url(database))
    try:
        async with connection.transaction(), other.transaction():
            for session, kind in ((connection, "parse"), (other, "index")):
                await session.execute(f"SET LOCAL deadlock_timeout = '{deadlock_timeout}'")
                await take_all_turns(session, kind)
            taken = await asyncio.gather(
                connection.fetch(CLAIM, PROJECT, ["index"]), other.fetch(CLAIM, PROJECT, ["parse"])
            )
    finally:
        await other.close()

    assert [len(runs) for runs in taken] == [1, 1]


async def test_transactions_that_count_in_limited_kinds_in_two_orders_both_go_on(
    database: str, ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    for kind in ("parse", "index"):
        await ledger.submit(kind)
        await ledger.limit_kind(kind, 2)
    other = await asyncpg.connect(driver_url(database))
    try:
        async with connection.transaction(), other.transaction():
            for session, kind in ((connection, "parse"), (other, "index")):
                await session.execute("SET LOCAL deadlock_timeout = '10ms'")
                assert len(await session.fetch(CLAIM, PROJECT, [kind])) == 1
            taken = await asyncio.gather(
                connection.fetch(CLAIM, PROJECT, ["index"]), other.fetch(CLAIM, PROJECT, ["parse"])
            )
    finally:
        await other.close()

    assert taken == [[], []]
