"""One idempotency key in several hands at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal

import asyncpg
import pytest

from runfold.ledger import Ledger, Receipt, Run, State, Submit, Transition
from runfold.ledger.errors import DuplicateKey, IllegalTransition
from runfold.ledger.events import NoteAdded, StepCompleted
from tests.support.databases import PROJECT
from tests.support.runs import claimed, event_count, types
from tests.support.waiting import until

COMPLETE = (
    "SELECT * FROM ledger.transition($1, '{w:1}', ARRAY[$2::uuid], ARRAY[$3::int], "
    "'{completed}', '{false}', '{NULL}', '{NULL}', '{NULL}', '{NULL}', '{NULL}', '{NULL}', "
    "'{NULL}', '{NULL}', '{NULL}', ARRAY[$4], '{w:1}')"
)

STEP = (
    "SELECT * FROM ledger.append($1, 'w:1', ARRAY[$2::uuid], ARRAY[$3::int], '{step.completed}', "
    "'{1}', '{read}', '{NULL}', '{NULL}', '{1}', '{NULL}', '{NULL}', ARRAY[$4], '{w:1}')"
)


@pytest.fixture
async def spectator(database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection that only looks."""
    opened = await asyncpg.connect(database)
    yield opened
    await opened.close()


async def somebody_waits(spectator: asyncpg.Connection) -> None:
    """Return once a backend of this database waits for a lock."""
    waits = (
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() "
        "AND cardinality(pg_blocking_pids(pid)) > 0"
    )
    await until(lambda: spectator.fetchval(waits))


async def test_one_key_submitted_by_many_at_once_makes_one_run(ledger: Ledger) -> None:
    runs = await asyncio.gather(*(ledger.submit("parse", {"a": 1}, key="k") for _ in range(20)))

    assert len({run.run_id for run in runs}) == 1
    assert await event_count(ledger) == 1


async def test_one_key_submitted_at_once_with_different_contents_makes_one_run_and_named_errors(
    ledger: Ledger,
) -> None:
    outcomes = await asyncio.gather(
        *(ledger.submit("parse", i % 2, key="k") for i in range(10)), return_exceptions=True
    )

    (run,) = await ledger.runs()
    assert {outcome.run_id for outcome in outcomes if isinstance(outcome, Run | DuplicateKey)} == {
        run.run_id
    }
    assert sum(isinstance(outcome, DuplicateKey) for outcome in outcomes) == 5


async def test_overlapping_keys_in_opposite_order_never_deadlock(ledger: Ledger) -> None:
    keys = [Submit(kind="parse", key=f"k-{i:02}") for i in range(30)]

    batches = await asyncio.gather(
        *(ledger.submit_many(keys[i:] + keys[:i] if i % 2 else keys[::-1]) for i in range(10))
    )

    assert await event_count(ledger) == 30
    assert sum(one.created for batch in batches for one in batch) == 30
    assert len({one.run_id for batch in batches for one in batch}) == 30


async def test_a_submit_whose_key_a_rolled_back_transaction_held_makes_the_run(
    ledger: Ledger, connection: asyncpg.Connection, spectator: asyncpg.Connection
) -> None:
    transaction = connection.transaction()
    await transaction.start()
    gone = await ledger.submit("parse", 1, key="k", connection=connection)

    late = asyncio.create_task(ledger.submit("parse", 2, key="k"))
    await somebody_waits(spectator)
    await transaction.rollback()
    run = await late

    assert run.run_id != gone.run_id
    assert run.input == 2


async def test_one_keyed_transition_sent_by_many_at_once_happens_once_and_each_gets_its_outcome(
    ledger: Ledger,
) -> None:
    lease = await claimed(ledger)

    runs = await asyncio.gather(
        *(
            ledger.transition(lease, State.COMPLETED, output=1, cost_usd_delta=1, key="k")
            for _ in range(10)
        )
    )

    assert {(run.state, run.version, run.cost_usd) for run in runs} == {
        (State.COMPLETED, 3, Decimal(1))
    }
    assert await types(ledger, lease.run_id) == ["run.submitted", "lease.acquired", "run.completed"]


async def test_one_keyed_append_sent_by_many_at_once_happens_once_and_each_gets_its_receipt(
    ledger: Ledger,
) -> None:
    run = await ledger.submit("parse")

    receipts = await asyncio.gather(
        *(ledger.append(run.run_id, NoteAdded(text="x"), key="k") for _ in range(10))
    )

    assert len(set(receipts)) == 1
    assert await event_count(ledger) == 2


async def test_an_append_that_waited_for_the_same_key_on_its_own_run_counts_once(
    ledger: Ledger, connection: asyncpg.Connection, spectator: asyncpg.Connection
) -> None:
    lease = await claimed(ledger)
    step = StepCompleted(name="read", cost_usd=Decimal(1))
    transaction = connection.transaction()
    await transaction.start()
    first = await connection.fetchrow(STEP, PROJECT, lease.run_id, lease.token, "k")
    assert first is not None

    late = asyncio.create_task(ledger.append(lease, step, key="k"))
    await somebody_waits(spectator)
    await transaction.commit()
    receipt = await late

    assert (receipt.version, receipt.hash) == (first["version"], first["hash"])
    assert (await types(ledger, lease.run_id)).count("step.completed") == 1
    assert (await ledger.get(lease.run_id)).cost_usd == Decimal(1)


async def test_a_key_that_another_run_takes_this_instant_is_a_duplicate(
    ledger: Ledger, connection: asyncpg.Connection, spectator: asyncpg.Connection
) -> None:
    one, two = await claimed(ledger), await claimed(ledger)
    transaction = connection.transaction()
    await transaction.start()
    await connection.fetch(COMPLETE, PROJECT, one.run_id, one.token, "k")

    late = asyncio.create_task(ledger.transition(two, State.COMPLETED, key="k"))
    await somebody_waits(spectator)
    await transaction.commit()

    with pytest.raises(DuplicateKey) as caught:
        await late
    assert caught.value.run_id == one.run_id


async def test_a_key_that_is_taken_this_instant_does_not_hold_up_or_blame_the_rest_of_a_batch(
    ledger: Ledger, connection: asyncpg.Connection, spectator: asyncpg.Connection
) -> None:
    one, two, three = [await claimed(ledger) for _ in range(3)]
    transaction = connection.transaction()
    await transaction.start()
    await connection.fetch(COMPLETE, PROJECT, one.run_id, one.token, "k")

    late = asyncio.create_task(
        ledger.transition_many(
            [Transition(two, State.COMPLETED, key="k"), Transition(three, State.COMPLETED)]
        )
    )
    await somebody_waits(spectator)
    await transaction.commit()
    taken, innocent = await late

    assert isinstance(taken, DuplicateKey)
    assert not isinstance(innocent, IllegalTransition), "a legal command is told that it is illegal"
    assert isinstance(innocent, Receipt)
