"""A backlog of deliveries: what is due is found at once, and each run's are sent in order."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from runfold.ledger import Ledger
from runfold.ledger.postgres.urls import driver_url
from runfold.ledger.webhooks import delivery_id
from tests.concurrency.test_crowds import blocks
from tests.support.waiting import blocked

URL = "http://127.0.0.1:1/"
RUN = UUID("01890000-0000-7000-8000-000000000001")
QUEUE = """
SELECT ledger.queue_deliveries('test', webhook_id, checkpoint, checkpoint, $2, $3::int[],
  array_fill('run.failed'::text, ARRAY[cardinality($3::int[])]),
  array_fill('x'::text, ARRAY[cardinality($3::int[])]))
FROM ledger.webhook WHERE webhook_id = $1
"""
DUE = "SELECT run_id, version FROM ledger.due_deliveries('test', $1, 8, '1 hour')"
RECORD = "SELECT ledger.record_attempt('test', $1, $2, $3, 1, 1, $4, $5, $6::text::interval)"
MANY = 4_000
BLOCKS = 200
"""More than eight deliveries cost, far fewer than a look at the backlog."""


async def queue(connection: asyncpg.Connection[Any], webhook: str, *versions: int) -> None:
    """Note deliveries of the run."""
    await connection.execute(QUEUE, webhook, [RUN] * len(versions), versions)


async def record(connection: asyncpg.Connection[Any], webhook: str, *versions: int) -> None:
    """Record that deliveries of the run were taken."""
    for version in versions:
        await connection.execute(RECORD, webhook, RUN, version, 204, None, None)


async def due(connection: asyncpg.Connection[Any], webhook: str) -> list[int]:
    """Take what is due, and return the versions."""
    return sorted(row["version"] for row in await connection.fetch(DUE, webhook))


async def test_what_is_due_is_found_without_a_look_at_what_waits_behind_it(
    ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    webhook, _ = await ledger.webhooks.add(URL)
    call = f"ledger.due_deliveries('test', '{webhook}', 8, '1 hour')"
    for first in range(1, MANY, 500):
        await queue(connection, webhook, *range(first, first + 500))
    assert await blocks(connection, call) < BLOCKS

    await connection.execute(RECORD, webhook, RUN, 1, 500, "no answer", "1 hour")
    assert await due(connection, webhook) == []
    assert await blocks(connection, call) < BLOCKS

    await connection.execute(
        "UPDATE ledger.delivery SET attempts = 1, next_at = NULL WHERE version < $1", MANY
    )
    await connection.execute("UPDATE ledger.delivery SET follows = false WHERE version = $1", MANY)
    assert await blocks(connection, call) < BLOCKS
    assert await due(connection, webhook) == [MANY]
    assert await blocks(connection, "ledger.forget_deliveries('test')") < BLOCKS


async def test_a_runs_deliveries_follow_each_other_however_they_are_noted_and_end(
    ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    webhook, _ = await ledger.webhooks.add(URL)
    await queue(connection, webhook, 2, 1, 2)
    await queue(connection, webhook, 3)
    assert await due(connection, webhook) == [1]
    await connection.execute(RECORD, webhook, RUN, 1, 500, "given up", None)
    assert await due(connection, webhook) == [2]
    await record(connection, webhook, 2)
    await queue(connection, webhook, 2, 3, 4)
    assert await due(connection, webhook) == [3]
    await record(connection, webhook, 3)
    assert await due(connection, webhook) == [4]

    name = delivery_id(webhook, RUN, 2, "x")
    assert await ledger.webhooks.resend(name, actor="ann")  # while 4 is being sent
    await connection.execute(RECORD, webhook, RUN, 4, 500, "no answer", "0 s")
    assert await due(connection, webhook) == [2]
    assert await ledger.webhooks.resend(delivery_id(webhook, RUN, 3, "x"), actor="ann")
    assert await due(connection, webhook) == []
    for version, attempt in ((2, 2), (3, 2), (4, 2)):
        await connection.execute(
            RECORD.replace(", 1, 1,", f", {attempt}, 1,"), webhook, RUN, version, 204, None, None
        )
        assert await due(connection, webhook) == [version + 1][: version < 4]


@pytest.mark.parametrize("first", ["queue", "record", "resend"])
async def test_none_is_left_behind_by_two_who_do_not_see_each_other(
    ledger: Ledger, connection: asyncpg.Connection[Any], database: str, first: str
) -> None:
    webhook, _ = await ledger.webhooks.add(URL)
    await queue(connection, webhook, 1, 2)
    await record(connection, webhook, 1)
    holding, waiting = [await asyncpg.connect(driver_url(database)) for _ in range(2)]
    resend = "SELECT ledger.resend_delivery('test', 'ann', $1, $2, $3)"
    transaction = holding.transaction()
    await transaction.start()
    if first == "queue":
        await queue(holding, webhook, 3)
        later = record(waiting, webhook, 2)
    elif first == "record":
        await record(holding, webhook, 2)
        later = queue(waiting, webhook, 3)
    else:
        await holding.execute(resend, webhook, RUN, 1)
        later = queue(waiting, webhook, 3)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(later)
        await blocked(ledger, waiting.get_server_pid())
        await transaction.commit()
    await holding.close()
    await waiting.close()

    if first == "resend":
        again = RECORD.replace(", 1, 1,", ", 2, 1,")
        await connection.execute(again, webhook, RUN, 1, 204, None, None)
        assert await due(connection, webhook) == [2]
        await record(connection, webhook, 2)
    assert await due(connection, webhook) == [3]
