"""Calls that meet share one statement, and each caller gets only its own outcome."""

from __future__ import annotations

import asyncio
from typing import TypeAlias

import asyncpg
import pytest

from runfold.ledger import Ledger, Run, State
from runfold.ledger.errors import DuplicateKey, InvalidValue, LeaseLost
from runfold.ledger.operations import batching
from tests.support.databases import PROJECT
from tests.support.runs import claimed, superseded, types
from tests.support.waiting import BOUND, awaited

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
COUNT = 20
LOCK = "SELECT FROM ledger.run_state WHERE run_id = $1 FOR UPDATE"
CANCEL = (
    "SELECT pg_cancel_backend(pid) FROM pg_locks "
    "WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid))"
)
TRANSACTIONS = "SELECT count(DISTINCT txid) FROM ledger.event WHERE type = $1"


async def test_transitions_asked_for_at_once_share_transactions_and_each_gives_its_own_run(
    ledger: Ledger,
) -> None:
    leases = [await claimed(ledger) for _ in range(COUNT)]

    runs = await asyncio.gather(
        *(ledger.transition(lease, "completed", output=n) for n, lease in enumerate(leases))
    )

    assert [(run.run_id, run.output) for run in runs] == [
        (lease.run_id, n) for n, lease in enumerate(leases)
    ]
    # The first at once, the others together.
    assert await ledger.pool.fetchval(TRANSACTIONS, "run.completed") == 2


async def test_submits_asked_for_at_once_share_transactions_and_each_gives_its_own_run(
    ledger: Ledger,
) -> None:
    await ledger.submit("parse")  # the first of a kind goes alone

    runs = await asyncio.gather(*(ledger.submit("parse", n) for n in range(COUNT)))

    assert [run.input for run in runs] == list(range(COUNT))
    assert len({run.run_id for run in runs}) == COUNT
    assert await ledger.pool.fetchval(TRANSACTIONS, "run.submitted") == 1 + 2


async def test_a_late_worker_among_others_is_refused_alone(ledger: Ledger) -> None:
    zombie, _ = await superseded(ledger)
    leases = [await claimed(ledger, "w:2") for _ in range(3)]

    outcomes = await asyncio.gather(
        *(ledger.transition(lease, "completed") for lease in (*leases[:2], zombie, leases[2])),
        return_exceptions=True,
    )

    assert [outcome.state for outcome in outcomes if isinstance(outcome, Run)] == [
        State.COMPLETED
    ] * 3
    assert isinstance(outcomes[2], LeaseLost)
    assert (await types(ledger, zombie.run_id))[-1] == "write.refused"


async def test_who_waits_for_a_lock_holds_up_nobody_else(
    ledger: Ledger, connection: Connection
) -> None:
    locked, *others = [await claimed(ledger) for _ in range(4)]

    async with connection.transaction():
        await connection.execute(LOCK, locked.run_id)
        blocked = asyncio.create_task(ledger.transition(locked, "completed"))
        await awaited(connection)
        runs = await asyncio.wait_for(
            asyncio.gather(*(ledger.transition(lease, "completed") for lease in others)), BOUND
        )
        assert not blocked.done()

    assert {run.state for run in (*runs, await blocked)} == {State.COMPLETED}


async def test_a_key_in_an_open_transaction_holds_up_only_who_asks_for_the_same_key(
    ledger: Ledger, connection: Connection
) -> None:
    await ledger.submit("audit")
    async with connection.transaction():
        mine = await ledger.submit("order", 1, key="K", connection=connection)
        same = asyncio.create_task(ledger.submit("order", 1, key="K"))
        await awaited(connection)
        for kind in ("audit", "new kind"):
            await asyncio.wait_for(ledger.submit(kind), BOUND)
        assert not same.done()

    assert (await same).run_id == mine.run_id


async def test_a_shared_statement_that_is_cancelled_is_made_again_one_by_one(
    ledger: Ledger, connection: Connection
) -> None:
    first, locked, *others = [await claimed(ledger) for _ in range(5)]

    async with connection.transaction():
        await connection.execute(LOCK, locked.run_id)
        asked = [
            asyncio.create_task(ledger.transition(lease, "completed"))
            for lease in (first, *others, locked)
        ]
        await awaited(connection)
        await connection.execute(CANCEL)
        runs = await asyncio.wait_for(asyncio.gather(*asked[:-1]), BOUND)

    assert {run.state for run in (*runs, await asked[-1])} == {State.COMPLETED}


async def test_a_statement_carries_no_more_content_than_its_limit(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "MOST_CHARACTERS", 16_000)
    await ledger.submit("big")

    runs = await asyncio.gather(*(ledger.submit("big", "x" * 7_000) for _ in range(5)))

    assert len({run.run_id for run in runs}) == 5
    # One at once, two, two.
    assert await ledger.pool.fetchval(TRANSACTIONS, "run.submitted") == 1 + 3


async def test_the_server_takes_a_statement_of_as_much_content_as_one_may_carry(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNFOLD_PAYLOAD_LIMIT_BYTES", str(batching.MOST_CHARACTERS))
    most = "x" * (batching.MOST_CHARACTERS - len('{"input":""}'))
    async with Ledger.open(database, PROJECT) as ledger:
        assert (await ledger.submit("big", most)).input == most


async def test_a_submit_that_the_server_refuses_takes_none_of_the_others_with_it(
    ledger: Ledger,
) -> None:
    await ledger.submit("parse", 1, key="taken")

    outcomes = await asyncio.gather(
        *(ledger.submit("parse", 2, key=key) for key in ("a", "b", "taken", "c")),
        return_exceptions=True,
    )

    assert isinstance(outcomes[2], DuplicateKey)
    kept = [outcome.key for outcome in outcomes if isinstance(outcome, Run)]
    assert kept == ["a", "b", "c"]
    assert len(await ledger.runs()) == 4


async def test_one_key_asked_for_at_once_is_one_run(ledger: Ledger) -> None:
    runs = await asyncio.gather(*(ledger.submit("parse", 1, key="same") for _ in range(COUNT)))

    assert len({run.run_id for run in runs}) == 1


async def test_moves_of_one_run_follow_one_another_in_the_order_asked(ledger: Ledger) -> None:
    lease = await claimed(ledger)

    await asyncio.gather(
        ledger.transition(lease, "waiting_tool", name="a"),
        ledger.transition(lease, "running"),
        ledger.transition(lease, "waiting_tool", name="b"),
        ledger.transition(lease, "running"),
        ledger.transition(lease, "completed"),
    )

    asked = ["tool.requested", "tool.completed"] * 2
    assert await types(ledger, lease.run_id) == [
        "run.submitted",
        "lease.acquired",
        *asked,
        "run.completed",
    ]


async def test_who_is_cancelled_before_anything_was_sent_writes_nothing(ledger: Ledger) -> None:
    first, second, third = [await claimed(ledger) for _ in range(3)]
    asking = [
        asyncio.create_task(ledger.transition(lease, "completed"))
        for lease in (first, second, third)
    ]
    await asyncio.sleep(0)  # each has asked: the first is on its way, the others wait for it

    asking[1].cancel()
    outcomes = await asyncio.gather(*asking, return_exceptions=True)

    assert isinstance(outcomes[1], asyncio.CancelledError)
    assert [(await ledger.get(lease.run_id)).state for lease in (first, second, third)] == [
        "completed",
        "running",
        "completed",
    ]


async def test_who_is_cancelled_on_the_way_leaves_the_others_their_turn(ledger: Ledger) -> None:
    first, second = [await claimed(ledger) for _ in range(2)]
    asking = [
        asyncio.create_task(ledger.transition(lease, "completed")) for lease in (first, second)
    ]
    await asyncio.sleep(0)

    asking[0].cancel()
    outcomes = await asyncio.gather(*asking, return_exceptions=True)

    assert isinstance(outcomes[1], Run)
    assert outcomes[1].state == State.COMPLETED
    assert (await ledger.transition(await claimed(ledger), "completed")).state == State.COMPLETED


async def test_bad_input_is_its_callers_own_and_never_sent(ledger: Ledger) -> None:
    leases = [await claimed(ledger) for _ in range(3)]

    outcomes = await asyncio.gather(
        *(
            ledger.transition(lease, "completed", cost_usd_delta=cost)
            for lease, cost in zip(leases, (1, -1, 2), strict=True)
        ),
        ledger.submit("parse", float("nan")),
        return_exceptions=True,
    )

    assert [type(outcome) for outcome in outcomes] == [Run, InvalidValue, Run, InvalidValue]
    assert (await ledger.get(leases[1].run_id)).state == State.RUNNING


@pytest.mark.parametrize(
    "content",
    [
        {"b": 1, "a": {"d": 2, "c": [{"f": 1, "e": 2}]}},
        {"a": {"c": [{"e": 2, "f": 1}], "d": 2}, "b": 1},
    ],
)
async def test_the_order_of_names_makes_no_other_content(ledger: Ledger, content: object) -> None:
    first = await ledger.submit("parse", {"a": {"d": 2, "c": [{"e": 2, "f": 1}]}, "b": 1}, key="k")

    again = await ledger.submit("parse", content, key="k")

    assert again == first
    stored = '{"input":{"a":{"c":[{"e":2,"f":1}],"d":2},"b":1}}'
    assert (
        await ledger.pool.fetchval(
            "SELECT body::text FROM ledger.payload WHERE run_id = $1", first.run_id
        )
        == stored
    )
