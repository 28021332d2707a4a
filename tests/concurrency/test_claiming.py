"""Many claimers at once: every run goes to one of them, and none is forgotten."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack

import asyncpg
import pytest

from runfold.ledger import Lease, Ledger, Receipt, State, Submit, Transition
from tests.support.databases import PROJECT
from tests.support.waiting import until


async def drained(ledger: Ledger, worker_id: str, limit: int) -> list[Lease]:
    """Claim until there is nothing left to claim."""
    taken: list[Lease] = []
    while leases := await ledger.claim(worker_id, limit=limit):
        taken += leases
    return taken


@pytest.mark.slow
@pytest.mark.parametrize("limit", [1, 7, 50])
async def test_many_claimers_never_share_a_run_and_leave_none(database: str, limit: int) -> None:
    async with AsyncExitStack() as stack:
        ledgers = [
            await stack.enter_async_context(Ledger.open(database, PROJECT)) for _ in range(4)
        ]
        made = await ledgers[0].submit_many(
            [Submit(kind=f"k{i % 3}", priority=i % 4) for i in range(300)]
        )

        shares = await asyncio.gather(
            *(drained(ledgers[i % 4], f"w:{i}", limit) for i in range(12))
        )  # fmt: skip
        rest = await drained(ledgers[0], "w:last", 300)

    taken = Counter(lease.run_id for share in (*shares, rest) for lease in share)
    assert set(taken.values()) == {1}
    assert set(taken) == {one.run_id for one in made}
    assert all(lease.token == 2 for share in shares for lease in share)


async def test_a_burst_of_submits_beside_claimers_is_worked_off_once_each(database: str) -> None:
    done: list[Receipt] = []
    submitted: set[object] = set()

    async with AsyncExitStack() as stack:
        ledgers = [
            await stack.enter_async_context(Ledger.open(database, PROJECT)) for _ in range(3)
        ]
        submitting = True

        async def submits() -> None:
            nonlocal submitting
            for i in range(20):
                made = await ledgers[0].submit_many(
                    [Submit(kind=f"k{i % 4}", priority=i % 3) for _ in range(20)]
                )
                submitted.update(one.run_id for one in made)
            submitting = False

        async def works(ledger: Ledger, worker_id: str) -> None:
            while submitting or await ledger.runs(state=State.PENDING, limit=1):
                leases = await ledger.claim(worker_id, limit=9)
                results = await ledger.transition_many(
                    [Transition(lease, State.COMPLETED) for lease in leases]
                )
                assert all(isinstance(result, Receipt) for result in results)
                done.extend(result for result in results if isinstance(result, Receipt))

        await asyncio.gather(submits(), *(works(ledgers[i % 3], f"w:{i}") for i in range(6)))

    assert len(submitted) == 400
    assert Counter(receipt.run_id for receipt in done) == Counter(submitted)
    assert {receipt.version for receipt in done} == {3}


async def test_a_claim_does_not_wait_for_runs_that_another_claim_has_locked(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    first, second = [one.run_id for one in await ledger.submit_many([Submit(kind="parse")] * 2)]
    claim = "SELECT run_id FROM ledger.claim($1, 'w:open', NULL, 1, '60 s')"
    transaction = connection.transaction()
    await transaction.start()
    assert await connection.fetchval(claim, PROJECT) == first

    taken = await ledger.claim("w:1", limit=5)
    await transaction.rollback()
    again = await ledger.claim("w:2", limit=5)

    assert [lease.run_id for lease in taken] == [second]
    assert [lease.run_id for lease in again] == [first]


async def test_a_claim_of_many_kinds_locks_no_run_that_it_does_not_take(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    await ledger.submit_many([Submit(kind=f"kind-{i}") for i in range(20)])
    claim = "SELECT run_id FROM ledger.claim($1, 'w:open', NULL, 1, '60 s')"
    async with connection.transaction():
        await connection.fetch(claim, PROJECT)

        leases = await ledger.claim("w:1", limit=10)
        free = await ledger.pool.fetch(
            "SELECT run_id FROM ledger.run_state WHERE state = 'pending' FOR UPDATE SKIP LOCKED"
        )

    assert len(leases) == 10
    assert len(free) == 9


async def test_a_claim_of_many_kinds_goes_on_past_what_others_have_locked(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    made = await ledger.submit_many([Submit(kind=f"kind-{i % 5}") for i in range(40)])
    await ledger.submit("kind-0", delay=0.001)
    claim = "SELECT run_id FROM ledger.claim($1, 'w:open', NULL, 12, '60 s')"
    async with connection.transaction():
        taken = await connection.fetch(claim, PROJECT)
        leases = await ledger.claim("w:1", limit=20)
        rest = await ledger.claim("w:2", limit=20)

    assert [row["run_id"] for row in taken] == [run.run_id for run in made[:12]]
    assert [lease.run_id for lease in leases] == [run.run_id for run in made[12:32]]
    assert len(rest) == 9


async def test_a_claim_takes_no_run_twice_and_none_early_where_others_locked_what_it_counted_on(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    urgent = await ledger.submit_many([Submit(kind="parse")] * 2)
    later = await ledger.submit_many([Submit(kind="parse", priority=5)] * 4)
    mark = (["parse"], [5], [later[0].run_id], [None])
    lock = "SELECT FROM ledger.run_state WHERE run_id = ANY ($1) FOR UPDATE"
    async with connection.transaction():
        await connection.execute(lock, [run.run_id for run in urgent])
        taken = await ledger.pool.fetch(
            "SELECT run_id FROM ledger.claim($1, 'w:1', NULL, 4, '60 s', $2, $3, $4, $5)",
            PROJECT,
            *mark,
        )
    assert [row["run_id"] for row in taken] == [run.run_id for run in later]

    back, asleep = await ledger.claim("w:1", limit=2)
    await ledger.release(back)
    await ledger.release(asleep, delay=3_600)
    async with connection.transaction():
        await connection.execute(lock, [back.run_id])
        assert await ledger.claim("w:1", limit=2) == []


async def test_a_claim_makes_up_for_what_others_locked_by_no_run_beyond_a_limit(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    await ledger.submit_many([Submit(kind="limited")] * 3)
    locked, free = await ledger.submit_many([Submit(kind="plain")] * 2)
    await ledger.limit_kind("limited", 1, actor="ann")
    async with connection.transaction():
        await connection.execute(
            "SELECT FROM ledger.run_state WHERE run_id = $1 FOR UPDATE", locked.run_id
        )
        leases = await ledger.claim("w:1", limit=3)

    assert [lease.kind for lease in leases] == ["limited", "plain"]
    assert leases[1].run_id == free.run_id


async def test_a_limited_kind_that_another_claim_counts_in_is_passed_over(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    await ledger.submit_many([Submit(kind="limited")] * 3)
    other = await ledger.submit("other")
    await ledger.limit_kind("limited", 2)
    claim = "SELECT run_id FROM ledger.claim($1, 'w:open', NULL, 1, '60 s')"
    async with connection.transaction():
        await connection.fetch(claim, PROJECT)

        beside = await ledger.claim("w:1", limit=5)
        nothing_else = await ledger.claim("w:1", limit=5)

    assert [lease.run_id for lease in beside] == [other.run_id]
    assert nothing_else == []
    assert len(await ledger.claim("w:1", limit=5)) == 1


async def test_a_run_whose_claim_was_rolled_back_keeps_its_attempts(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    run = await ledger.submit("parse")
    transaction = connection.transaction()
    await transaction.start()
    await connection.fetch("SELECT * FROM ledger.claim($1, 'w:open', NULL, 1, '60 s')", PROJECT)
    await transaction.rollback()

    assert await ledger.get(run.run_id) == run
    assert (await ledger.claim("w:1"))[0].attempt == 1


async def test_claims_and_releases_in_a_whirl_keep_every_run_whole(database: str) -> None:
    async with AsyncExitStack() as stack:
        ledgers = [
            await stack.enter_async_context(Ledger.open(database, PROJECT)) for _ in range(3)
        ]
        made = await ledgers[0].submit_many([Submit(kind="parse", max_attempts=1)] * 10)

        async def whirls(ledger: Ledger, worker_id: str) -> None:
            for _ in range(15):
                for lease in await ledger.claim(worker_id, limit=2):
                    await ledger.release(lease)

        await asyncio.gather(*(whirls(ledgers[i % 3], f"w:{i}") for i in range(6)))
        found: list[Lease] = []

        async def all_found() -> bool:
            found.extend(await ledgers[0].claim("w:last", limit=10))
            return len(found) == 10

        await until(all_found)

    assert {lease.run_id for lease in found} == {one.run_id for one in made}
    assert {lease.attempt for lease in found} == {1}
