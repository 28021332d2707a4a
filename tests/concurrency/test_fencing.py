"""Two who want the same run at the same instant: exactly one wins, and the history says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest

from runfold.ledger import Lease, Ledger, Run, State, Submit
from runfold.ledger.errors import IllegalTransition, LeaseLost, LedgerError, VersionConflict
from runfold.ledger.events import NoteAdded, WriteRefused
from tests.support.clock import set_clock
from tests.support.databases import PROJECT
from tests.support.runs import TINY, abandoned, claimed, newest, superseded, types, waiting
from tests.support.waiting import BOUND, blocked, lapsed

BEAT = "SELECT * FROM ledger.heartbeat($1, $2, $3, $4, $5)"
REAP = "SELECT * FROM ledger.reap($1, 'reaper', 100)"
COMPLETE = (
    "SELECT * FROM ledger.transition($1, $2, $3::uuid[], $4::int[], '{completed}', '{false}', "
    "'{NULL}', '{NULL}', '{NULL}', '{NULL}', '{NULL}', '{NULL}', '{NULL}', '{NULL}', '{NULL}', "
    "'{NULL}', $2)"
)

BATCHES = {
    "refuse": "ledger.refuse($1, 'w:zombie', 'beat', $2, $3, $4)",
    "append": "ledger.append($1, 'ann', $2, NULL, array_fill('note.added'::text, of), "
    """array_fill(1, of), '{}', '{}', array_fill('{"text": "so"}'::text, of), '{}', '{}', '{}', """
    "'{}')",
    "append with a key": "ledger.append($1, 'ann', $2, NULL, array_fill('note.added'::text, of), "
    """array_fill(1, of), '{}', '{}', array_fill('{"text": "so"}'::text, of), '{}', '{}', '{}', """
    "$2::text[])",
    "cancel": "ledger.cancel($1, 'ann', $2, NULL)",
    "heartbeat": "ledger.heartbeat($1, $2, $3, array_fill(interval '1 min', of), $4)",
    "transition": "ledger.transition($1, $4, $2, $3, array_fill('completed'::text, of), '{}', "
    "'{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', $4)",
    "requeue": "ledger.requeue($1, 'lease.released', $2, $3, '{}', '{}', '{}', $4)",
}
"""Calls of the functions that take many runs: a project, runs, tokens and workers."""
SINGLES = {
    "decide": "ledger.decide($1, 'ann', ($2::uuid[])[1], 'approval.granted', ($3::int[])[1] + 1, "
    "NULL, NULL, NULL, NULL)",
    "signal": "ledger.signal($1, 'ann', ($2::uuid[])[1], 'go', NULL, NULL, NULL)",
}


@pytest.fixture
async def other(database: str) -> AsyncIterator[asyncpg.Connection]:
    """A second connection of its own."""
    opened = await asyncpg.connect(database)
    yield opened
    await opened.close()


def beat(connection: asyncpg.Connection, *leases: Lease) -> asyncio.Future[list[asyncpg.Record]]:
    """Send a heartbeat in whatever transaction the connection has open."""
    runs, tokens = [lease.run_id for lease in leases], [lease.token for lease in leases]
    ttls = [timedelta(seconds=60)] * len(leases)
    workers = [lease.worker_id for lease in leases]
    return asyncio.ensure_future(connection.fetch(BEAT, PROJECT, runs, tokens, ttls, workers))


def call(
    connection: asyncpg.Connection, verb: str, *leases: Lease
) -> asyncio.Future[list[asyncpg.Record]]:
    """Call a function in whatever transaction the connection has open."""
    statement = (
        "SELECT called.* FROM (SELECT ARRAY[cardinality($2::uuid[])]) AS given (of), "
        f"{(BATCHES | SINGLES)[verb]} AS called "
        "WHERE num_nonnulls($1::text, $2::uuid[], $3::int[], $4::text[]) = 4"
    )
    runs, tokens = [lease.run_id for lease in leases], [lease.token for lease in leases]
    workers = [lease.worker_id for lease in leases]
    return asyncio.ensure_future(connection.fetch(statement, PROJECT, runs, tokens, workers))


async def test_a_zombie_is_refused_and_recorded_while_the_new_owner_completes(
    ledger: Ledger,
) -> None:
    old, new = await superseded(ledger)

    late, done = await asyncio.gather(
        ledger.transition(old, State.COMPLETED, output="stale"),
        ledger.transition(new, State.COMPLETED, output="fresh"),
        return_exceptions=True,
    )
    kinds = await types(ledger, old.run_id)

    assert isinstance(late, LeaseLost)
    assert isinstance(done, Run)
    assert (await ledger.get(old.run_id)).output == "fresh"
    assert (kinds.count("write.refused"), kinds.count("run.completed")) == (1, 1)


async def test_a_reaper_passes_by_a_run_whose_late_beat_is_under_way(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    lease = await abandoned(ledger)
    transaction = connection.transaction()
    await transaction.start()
    assert len(await beat(connection, lease)) == 1

    reaped = await asyncio.wait_for(ledger.reap(), BOUND)
    await transaction.commit()

    assert reaped == []
    assert await ledger.reap() == []
    assert (await types(ledger, lease.run_id))[-1] == "lease.heartbeat"
    assert (await ledger.transition(lease, State.COMPLETED)).state == State.COMPLETED


async def test_a_beat_waits_for_the_reaper_that_has_its_run_and_then_is_lost(
    ledger: Ledger, connection: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    lease = await abandoned(ledger)
    transaction = connection.transaction()
    await transaction.start()
    assert len(await connection.fetch(REAP, PROJECT)) == 1

    late = beat(other, lease)
    await blocked(ledger, other.get_server_pid())
    assert not late.done()
    await transaction.commit()

    assert await late == []
    assert (await types(ledger, lease.run_id))[2:] == ["lease.expired"]
    assert (await ledger.heartbeat([lease]))[0].lost
    assert (await newest(ledger, lease.run_id, WriteRefused)).name == "heartbeat"


async def test_a_beat_that_waited_for_a_reaper_that_gave_up_counts(
    ledger: Ledger, connection: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    lease = await abandoned(ledger)
    transaction = connection.transaction()
    await transaction.start()
    await connection.fetch(REAP, PROJECT)

    late = beat(other, lease)
    await blocked(ledger, other.get_server_pid())
    await transaction.rollback()

    assert len(await late) == 1
    assert (await types(ledger, lease.run_id))[2:] == ["lease.heartbeat"]


async def test_a_completion_that_waited_for_the_reaper_is_refused(
    ledger: Ledger, connection: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    lease = await abandoned(ledger)
    transaction = connection.transaction()
    await transaction.start()
    await connection.fetch(REAP, PROJECT)

    late = asyncio.ensure_future(
        other.fetch(COMPLETE, PROJECT, ["w:1"], [lease.run_id], [lease.token])
    )
    await blocked(ledger, other.get_server_pid())
    await transaction.commit()

    assert await late == []
    assert (await ledger.get(lease.run_id)).state == State.PENDING


async def test_a_beat_that_waited_for_another_beat_of_the_same_lease_counts_too(
    ledger: Ledger, connection: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    lease = await claimed(ledger)
    transaction = connection.transaction()
    await transaction.start()
    await beat(connection, lease)

    second = beat(other, lease)
    await blocked(ledger, other.get_server_pid())
    await transaction.commit()

    assert len(await second) == 1
    assert (await types(ledger, lease.run_id))[2:] == ["lease.heartbeat"] * 2
    first, last = (await ledger.history(lease.run_id))[2:]
    assert first.recorded_at is not None
    assert last.recorded_at is not None
    assert first.recorded_at <= last.recorded_at


async def test_of_two_who_decide_one_approval_the_first_counts(ledger: Ledger) -> None:
    lease = await waiting(ledger, State.WAITING_APPROVAL, park=True)

    run = await ledger.get(lease.run_id)
    outcomes = await asyncio.gather(
        *(ledger.approve(run, actor=f"yes-{i}") for i in range(4)),
        *(ledger.reject(run, actor=f"no-{i}") for i in range(4)),
        return_exceptions=True,
    )
    kinds = await types(ledger, lease.run_id)

    assert sum(isinstance(outcome, Run) for outcome in outcomes) == 1
    assert all(isinstance(outcome, Run | LedgerError) for outcome in outcomes)
    assert sum(kind in {"approval.granted", "approval.rejected"} for kind in kinds) == 1


async def test_of_several_endings_of_one_lease_one_counts_and_the_others_are_refused(
    ledger: Ledger,
) -> None:
    lease = await claimed(ledger)

    outcomes = await asyncio.gather(
        *(
            ledger.transition(lease, state)
            for state in (State.COMPLETED, State.FAILED, State.CANCELLED) * 3
        ),
        return_exceptions=True,
    )

    runs = [outcome for outcome in outcomes if isinstance(outcome, Run)]
    assert len(runs) == 3  # the same end, sent three times, has one outcome
    assert {run.version for run in runs} == {3}
    assert all(isinstance(outcome, Run | LeaseLost | IllegalTransition) for outcome in outcomes)
    assert (await types(ledger, lease.run_id)).count("write.refused") == 1


async def test_of_two_who_expect_the_same_version_one_counts(ledger: Ledger) -> None:
    run = await ledger.submit("parse")

    outcomes = await asyncio.gather(
        *(ledger.append(run.run_id, NoteAdded(text=str(i)), expected_version=1) for i in range(6)),
        return_exceptions=True,
    )

    assert sum(isinstance(outcome, VersionConflict) for outcome in outcomes) == 5
    assert len(await ledger.history(run.run_id)) == 2


async def test_a_cancel_beside_a_claim_either_ends_the_run_or_reaches_its_holder(
    ledger: Ledger,
) -> None:
    for _ in range(20):
        run = await ledger.submit("parse")
        leases, cancelled = await asyncio.gather(
            ledger.claim("w:1"), ledger.cancel(run.run_id, actor="ann")
        )
        if leases:
            (beaten,) = await ledger.heartbeat(leases)
            assert beaten.cancel_requested
            assert cancelled.state == State.RUNNING
            assert (await ledger.release(beaten)).state == State.CANCELLED
        else:
            assert cancelled.state == State.CANCELLED


# -- reapers ---------------------------------------------------------------------------------------


async def test_any_number_of_reapers_repair_each_run_once(ledger: Ledger) -> None:
    await ledger.submit_many([Submit(kind="parse")] * 60)
    leases = await ledger.claim("w:1", limit=60, ttl=TINY)
    await lapsed(ledger, *leases)

    sweeps = await asyncio.gather(*(ledger.reap(limit=25) for _ in range(6)))
    rest = [run for _ in range(3) for run in await ledger.reap(limit=25)]

    reaped = [run.run_id for sweep in sweeps for run in sweep] + [run.run_id for run in rest]
    assert sorted(reaped) == sorted(lease.run_id for lease in leases)
    for lease in leases[::10]:
        assert await types(ledger, lease.run_id) == [
            "run.submitted",
            "lease.acquired",
            "lease.expired",
        ]


async def test_a_reaper_does_not_wait_for_another_one_that_is_under_way(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    lease = await abandoned(ledger)
    transaction = connection.transaction()
    await transaction.start()
    await connection.fetch(REAP, PROJECT)

    assert await asyncio.wait_for(ledger.reap(), BOUND) == []
    await transaction.rollback()

    (run,) = await ledger.reap()
    assert run.run_id == lease.run_id


async def test_beats_and_reapers_race_and_every_run_has_one_owner(ledger: Ledger) -> None:
    await ledger.submit_many([Submit(kind="parse")] * 40)
    leases = await ledger.claim("w:1", limit=40, ttl=TINY)
    await lapsed(ledger, *leases)

    beats = asyncio.create_task(ledger.heartbeat(leases))
    sweeps = await asyncio.gather(*(ledger.reap(limit=15) for _ in range(3)))
    beaten = await beats

    reaped = {run.run_id for sweep in sweeps for run in sweep}
    for lease in beaten:
        kinds = await types(ledger, lease.run_id)
        if lease.lost:
            assert lease.run_id in reaped
            assert kinds[2:] == ["lease.expired", "write.refused"]
        else:
            assert kinds[2] == "lease.heartbeat"


# -- locks -----------------------------------------------------------------------------------------


async def test_overlapping_batches_in_opposite_order_never_deadlock(ledger: Ledger) -> None:
    await ledger.submit_many([Submit(kind="parse")] * 60)
    leases = await ledger.claim("w:1", limit=60)
    rounds = []

    for i in range(12):
        part = leases[i : i + 45]
        rounds += [ledger.heartbeat(part), ledger.heartbeat(part[::-1])]

    for beaten in await asyncio.gather(*rounds):
        assert not any(lease.lost for lease in beaten)


async def test_a_batch_takes_its_locks_in_the_order_of_run_ids_whatever_order_it_names_them_in(
    ledger: Ledger,
    connection: asyncpg.Connection,
    other: asyncpg.Connection,
    subtests: pytest.Subtests,
) -> None:
    await ledger.submit_many([Submit(kind="parse")] * 3)
    low, middle, high = await ledger.claim("w:1", limit=3)
    for verb in BATCHES:
        with subtests.test(verb):
            lock, undone = connection.transaction(), other.transaction()
            await lock.start()
            await undone.start()
            await beat(connection, middle)

            waits = call(other, verb, high, middle, low)
            await blocked(ledger, other.get_server_pid())

            # It waits at the middle one: the low one is locked already, the high one not yet.
            assert await _is_locked(ledger, low)
            assert not await _is_locked(ledger, high)
            await lock.commit()
            assert len(await waits) == 3
            await undone.rollback()


async def test_a_write_that_waited_for_its_run_goes_on_from_there_and_is_dated_no_earlier(
    ledger: Ledger,
    connection: asyncpg.Connection,
    other: asyncpg.Connection,
    subtests: pytest.Subtests,
) -> None:
    for verb in (*SINGLES, *BATCHES):  # what is put back, and could be claimed, comes last
        with subtests.test(verb):
            lease = await _ready(ledger, verb)
            async with connection.transaction():
                await set_clock(connection, timedelta(minutes=10))
                await call(connection, "append", lease)
                await set_clock(connection, timedelta())

                waits = call(other, verb, lease)
                await blocked(ledger, other.get_server_pid())
            assert len(await waits) == 1

            *_, before, noted, after = await ledger.history(lease.run_id)
            assert noted.type == "note.added"
            assert (after.type == "note.added") is verb.startswith("append")
            assert before.recorded_at < noted.recorded_at <= after.recorded_at  # type: ignore[operator]  # events of the ledger have a time


async def _ready(ledger: Ledger, verb: str) -> Lease:
    """Return the lease of a run that is as the verb needs it."""
    match verb:
        case "refuse":
            zombie = await claimed(ledger)
            await ledger.release(zombie)
            await ledger.claim("w:new")
            return zombie
        case "decide":
            return await waiting(ledger, State.WAITING_APPROVAL, park=True)
        case "signal":
            return await waiting(ledger, State.WAITING_TOOL, park=True, name="signal:go")
        case _:
            return await claimed(ledger)


async def _is_locked(ledger: Ledger, lease: Lease) -> bool:
    free = (
        "SELECT count(*) FROM (SELECT FROM ledger.run_state "
        "WHERE run_id = $1 FOR UPDATE SKIP LOCKED) AS s"
    )
    return bool(await ledger.pool.fetchval(free, lease.run_id) == 0)
