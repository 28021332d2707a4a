"""Reaping: what died is repaired, what is overdue is ended, along legal edges only."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import asyncpg
import pytest

from runfold.ledger import Lease, Ledger, Run, State, Submit
from runfold.ledger.errors import InvalidValue, LeaseLost
from runfold.ledger.events import LeaseExpired, NoteAdded, RunCancelled, RunFailed, RunTimedOut
from runfold.ledger.lifecycle import ATTEMPTS_EXHAUSTED, DEADLINE_PASSED, LEASE_EXPIRED
from runfold.ledger.postgres.urls import driver_url
from tests.support.clock import set_clock
from tests.support.databases import PROJECT
from tests.support.runs import (
    TINY,
    abandoned,
    brought_to,
    claimed,
    event_count,
    newest,
    types,
    waiting,
)
from tests.support.waiting import blocked, lapsed, passed

HELD = [State.RUNNING, State.WAITING_TOOL, State.WAITING_APPROVAL]
WAITS = [State.WAITING_TOOL, State.WAITING_APPROVAL]


async def test_there_is_nothing_to_do_for_what_is_alive_finished_or_in_time(ledger: Ledger) -> None:
    for state in WAITS:
        await waiting(ledger, state, park=True)
    for state in reversed(State):
        await brought_to(ledger, state)
    await ledger.submit("parse", deadline=3600, delay=60)
    before = await event_count(ledger)

    assert await ledger.reap() == []

    assert await event_count(ledger) == before


@pytest.mark.parametrize("state", HELD)
async def test_a_lapsed_lease_with_attempts_left_puts_the_run_back(
    ledger: Ledger, state: State
) -> None:
    lease = await begun(ledger, max_attempts=2)
    if state != State.RUNNING:
        await ledger.transition(lease, state)
    await lapsed(ledger, lease)

    (run,) = await ledger.reap()
    kinds = await types(ledger, lease.run_id)
    (again,) = await ledger.claim("w:2")

    assert (run.state, run.error_code, run.attempt_count) == (State.PENDING, LEASE_EXPIRED, 1)
    assert (run.token, run.worker_id, run.lease_until, run.completed_at) == (None,) * 4
    assert run.available_at == run.updated_at
    assert kinds[-1] == "lease.expired"
    assert (again.attempt, again.token) == (2, run.version + 1)


async def begun(ledger: Ledger, **submit: Any) -> Lease:
    """Submit a run, lease it for a moment, and beat once."""
    (lease,) = await ledger.heartbeat([await claimed(ledger, ttl=TINY, **submit)])
    return lease


async def test_a_lease_that_was_never_begun_charges_no_attempt_three_times(ledger: Ledger) -> None:
    charged = await begun(ledger, max_attempts=2)
    await lapsed(ledger, charged)
    (run,) = await ledger.reap()
    attempts = []
    for _ in range(3):
        (lease,) = await ledger.claim("w:1", ttl=TINY)
        await lapsed(ledger, lease)
        (reaped,) = await ledger.reap()
        event = await newest(ledger, run.run_id, LeaseExpired)
        attempts.append((reaped.state, reaped.attempt_count, event.attempt))
        assert "nothing was begun under it" in str(event.error_detail)

    (lease,) = await ledger.claim("w:1", ttl=TINY)
    await lapsed(ledger, lease)
    (failed,) = await ledger.reap()

    assert attempts == [(State.PENDING, 1, 1)] * 3
    assert (failed.state, failed.attempt_count) == (State.FAILED, 2)
    assert failed.error_code == ATTEMPTS_EXHAUSTED
    await ledger.verify()


async def test_a_lease_waits_for_no_other_of_its_worker_but_last_attempts(ledger: Ledger) -> None:
    await claimed(ledger, ttl=60)
    lease = await claimed(ledger, ttl=TINY)
    await lapsed(ledger, lease)

    assert [run.run_id for run in await ledger.reap()] == [lease.run_id]


@pytest.mark.parametrize("by", ["a worker before", "a signal", "a note", "another's token"])
async def test_what_others_append_begins_nothing_under_a_lease(ledger: Ledger, by: str) -> None:
    run = await ledger.submit("parse", max_attempts=2)
    first = (await ledger.heartbeat(await ledger.claim("w:1", ttl=TINY)))[0]
    await lapsed(ledger, first)
    await ledger.reap()
    (last,) = await ledger.claim("w:2", ttl=TINY)
    if by == "a signal":
        await ledger.signal(run.run_id, "go")
    elif by == "a note":
        await ledger.append(run.run_id, NoteAdded(text="hm"), actor="ann")
    else:
        late = first if by == "a worker before" else replace(last, worker_id="w:3")
        with pytest.raises(LeaseLost):
            await ledger.transition(late, State.COMPLETED)

    await lapsed(ledger, last)
    (reaped,) = await ledger.reap()

    assert (await ledger.get(run.run_id)).version > last.token + 1
    assert (reaped.state, reaped.attempt_count) == (State.PENDING, 1)


async def test_last_attempts_that_were_lost_with_their_worker_are_not_charged(
    ledger: Ledger,
) -> None:
    runs = [await ledger.submit("parse", max_attempts=2) for _ in range(3)]
    once = await ledger.submit("parse", max_attempts=1)

    async def lost(count: int) -> list[Run]:
        leases = await ledger.heartbeat(await ledger.claim("w:1", ttl=TINY, limit=count))
        await lapsed(ledger, *leases)
        return await ledger.reap()

    await lost(3)
    together = await lost(4)
    alone = await lost(1)

    assert {(run.run_id, run.state, run.attempt_count) for run in together} == {
        *((run.run_id, State.PENDING, 1) for run in runs),
        (once.run_id, State.FAILED, 1),
    }
    event = await newest(ledger, runs[1].run_id, LeaseExpired)
    assert (event.attempt, event.error_code) == (1, LEASE_EXPIRED)
    assert "other runs were lost with it" in str(event.error_detail)
    assert [(run.state, run.error_code) for run in alone] == [(State.FAILED, ATTEMPTS_EXHAUSTED)]


async def test_leases_that_lapse_first_wait_for_the_last_attempts_of_their_worker(
    ledger: Ledger,
) -> None:
    last = await begun(ledger, max_attempts=2)
    await lapsed(ledger, last)
    await ledger.reap()
    first = await ledger.submit("other")
    early = await ledger.heartbeat(await ledger.claim("w:1", ttl=60, kinds=["other"]))
    late = await ledger.heartbeat(await ledger.claim("w:1", ttl=120))
    assert [lease.run_id for lease in (*early, *late)] == [first.run_id, last.run_id]

    await set_clock(ledger.pool, timedelta(seconds=61))
    before = await ledger.reap()
    await set_clock(ledger.pool, timedelta(seconds=121))
    after = await ledger.reap()

    assert before == []
    assert {(run.run_id, run.state, run.attempt_count) for run in after} == {
        (first.run_id, State.PENDING, 1),
        (last.run_id, State.PENDING, 1),
    }


async def test_a_lease_that_a_living_worker_forgot_waits_for_no_other(ledger: Ledger) -> None:
    forgotten = await begun(ledger)
    kept = await claimed(ledger, max_attempts=1)
    await lapsed(ledger, forgotten)
    await ledger.heartbeat([kept])

    (run,) = await ledger.reap()

    assert (run.run_id, run.attempt_count) == (forgotten.run_id, 1)


async def test_the_compensating_event_names_the_lease_its_holder_and_why(ledger: Ledger) -> None:
    lease = await abandoned(ledger, "w:dead")

    (run,) = await ledger.reap()
    event = await newest(ledger, lease.run_id, LeaseExpired)

    assert (event.compensates, event.error_code, event.actor) == (
        lease.token,
        LEASE_EXPIRED,
        "reaper",
    )
    assert event.state == State.PENDING
    assert "w:dead held the lease until" in run.error_detail
    assert "sent no heartbeat" in run.error_detail


async def test_times_in_a_reason_are_in_utc_whatever_time_zone_the_reapers_session_has(
    ledger: Ledger, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    lease = await abandoned(ledger, "w:dead")
    await connection.execute("SET TIME ZONE 'Asia/Tokyo'")

    await connection.fetch("SELECT * FROM ledger.reap($1, 'reaper', 1)", PROJECT)

    said = (await ledger.get(lease.run_id)).error_detail
    assert f"until {lease.until:%Y-%m-%d %H:%M:%S}" in said
    assert "UTC and sent no heartbeat" in said


async def test_a_lapsed_lease_is_named_by_its_token_whatever_was_appended_since(
    ledger: Ledger,
) -> None:
    lease = await claimed(ledger, ttl=TINY)
    await ledger.heartbeat([lease])
    await ledger.transition(lease, State.WAITING_TOOL)
    await ledger.transition(lease, State.RUNNING)
    run = await ledger.get(lease.run_id)
    await passed(ledger, run.lease_until)

    await ledger.reap()

    assert (await newest(ledger, lease.run_id, LeaseExpired)).compensates == lease.token == 2


@pytest.mark.parametrize(
    ("state", "end", "type_"),
    [
        (State.RUNNING, State.FAILED, "run.failed"),
        (State.WAITING_TOOL, State.FAILED, "run.failed"),
        (State.WAITING_APPROVAL, State.TIMEOUT, "run.timed_out"),
    ],
)
async def test_a_lapsed_lease_with_no_attempt_left_ends_the_run(
    ledger: Ledger, state: State, end: State, type_: str
) -> None:
    lease = await begun(ledger, max_attempts=1)
    if state != State.RUNNING:
        await ledger.transition(lease, state)
    await lapsed(ledger, lease)

    (run,) = await ledger.reap()
    event = (await ledger.history(lease.run_id))[-1]

    assert (run.state, run.error_code, run.token) == (end, ATTEMPTS_EXHAUSTED, None)
    assert run.completed_at == event.recorded_at
    assert isinstance(event, RunFailed | RunTimedOut)
    assert (event.type, event.compensates, event.error_code) == (
        type_,
        lease.token,
        ATTEMPTS_EXHAUSTED,
    )
    assert "w:1 held the lease until" in run.error_detail
    assert event.error_detail == run.error_detail


async def test_a_run_is_put_back_until_its_attempts_are_used_up(ledger: Ledger) -> None:
    await ledger.submit("parse", max_attempts=3)
    states = []

    for _ in range(3):
        (lease,) = await ledger.heartbeat(await ledger.claim("w:1", ttl=TINY))
        await lapsed(ledger, lease)
        (run,) = await ledger.reap()
        states.append((run.state, run.attempt_count, run.error_code))

    assert states == [
        (State.PENDING, 1, LEASE_EXPIRED),
        (State.PENDING, 2, LEASE_EXPIRED),
        (State.FAILED, 3, ATTEMPTS_EXHAUSTED),
    ]
    assert await ledger.claim("w:1") == []
    assert await ledger.reap() == []


@pytest.mark.parametrize("state", HELD)
async def test_a_lapsed_lease_of_a_run_that_was_asked_to_cancel_cancels_it(
    ledger: Ledger, state: State
) -> None:
    lease = await claimed(ledger, ttl=TINY)
    if state != State.RUNNING:
        await ledger.transition(lease, state)
    await ledger.cancel(lease.run_id, actor="ann")
    await lapsed(ledger, lease)

    (run,) = await ledger.reap()
    event = await newest(ledger, lease.run_id, RunCancelled)

    assert (run.state, run.error_code, event.compensates) == (State.CANCELLED, None, lease.token)


async def test_a_held_run_that_was_asked_to_cancel_is_left_to_its_worker_while_that_lives(
    ledger: Ledger,
) -> None:
    lease = await claimed(ledger)
    await ledger.cancel(lease.run_id, actor="ann")

    assert await ledger.reap() == []


EDGES_AT_DEADLINE = (
    (State.PENDING, State.CANCELLED, "run.cancelled"),
    (State.RUNNING, State.TIMEOUT, "run.timed_out"),
    (State.WAITING_TOOL, State.FAILED, "run.failed"),
    (State.WAITING_APPROVAL, State.TIMEOUT, "run.timed_out"),
)


async def test_a_run_past_its_deadline_is_ended_by_the_edge_its_state_has(
    ledger: Ledger, subtests: pytest.Subtests
) -> None:
    for state, end, type_ in EDGES_AT_DEADLINE:
        for park in [False, True]:
            with subtests.test(f"{state.value}, park={park}"):
                submitted = await ledger.submit("parse", deadline=TINY)
                token = None
                if state != State.PENDING:
                    (lease,) = await ledger.claim("w:1")
                    token = lease.token
                    if state != State.RUNNING:
                        await ledger.transition(lease, state, park=park)
                        token = None if park else token
                await passed(ledger, submitted.deadline)

                (run,) = await ledger.reap()
                event = (await ledger.history(run.run_id))[-1]

                assert (run.state, run.error_code, event.type) == (end, DEADLINE_PASSED, type_)
                assert (run.token, run.available_at, run.completed_at) == (
                    None,
                    None,
                    event.recorded_at,
                )
                assert isinstance(event, RunCancelled | RunTimedOut | RunFailed)
                assert event.compensates == token
                assert "deadline" in run.error_detail
                assert "has passed" in run.error_detail
                assert await ledger.claim("w:2") == []
                assert await ledger.reap() == []


async def test_the_deadline_counts_before_the_lapsed_lease(ledger: Ledger) -> None:
    submitted = await ledger.submit("parse", deadline=TINY, max_attempts=1)
    (lease,) = await ledger.claim("w:1", ttl=TINY)
    await passed(ledger, submitted.deadline)
    await lapsed(ledger, lease)

    (run,) = await ledger.reap()

    assert (run.state, run.error_code) == (State.TIMEOUT, DEADLINE_PASSED)


async def test_an_answered_run_past_its_deadline_is_ended_and_not_claimable(ledger: Ledger) -> None:
    await ledger.submit("parse", deadline=60)
    (lease,) = await ledger.claim("w:1")
    await ledger.transition(lease, State.WAITING_APPROVAL, park=True)
    await ledger.approve(await ledger.get(lease.run_id), actor="ann")
    await set_clock(ledger.pool, timedelta(seconds=61))

    (run,) = await ledger.reap()

    assert (run.state, run.available_at) == (State.TIMEOUT, None)


async def test_a_sweep_is_bounded_and_the_next_one_goes_on(ledger: Ledger) -> None:
    await ledger.submit_many([Submit(kind="parse")] * 5)
    leases = await ledger.claim("w:1", limit=5, ttl=TINY)
    await lapsed(ledger, *leases)

    sweeps = [await ledger.reap(limit=2) for _ in range(4)]

    assert [len(sweep) for sweep in sweeps] == [2, 2, 1, 0]
    assert {run.run_id for sweep in sweeps for run in sweep} == {lease.run_id for lease in leases}


async def test_a_bounded_sweep_counts_every_kind_of_repair(ledger: Ledger) -> None:
    await ledger.submit_many([Submit(kind="parse", deadline=TINY)] * 3)
    lapsing = await ledger.submit_many([Submit(kind="other")] * 3)
    leases = await ledger.claim("w:1", kinds=["other"], limit=3, ttl=TINY)
    await lapsed(ledger, *leases)
    await passed(ledger, (await ledger.get(lapsing[0].run_id)).created_at + timedelta(seconds=TINY))

    sweeps = [await ledger.reap(limit=4), await ledger.reap(limit=4)]

    assert [len(sweep) for sweep in sweeps] == [4, 2]


async def test_one_sweep_repairs_many_and_touches_nothing_else(ledger: Ledger) -> None:
    await ledger.submit_many([Submit(kind="parse")] * 300)
    dead = await ledger.claim("w:dead", limit=100, ttl=TINY)
    alive = await ledger.claim("w:alive", limit=100)
    await lapsed(ledger, *dead)

    reaped = await ledger.reap()

    assert {run.run_id for run in reaped} == {lease.run_id for lease in dead}
    assert all(not lease.lost for lease in await ledger.heartbeat(alive))
    assert len(await ledger.claim("w:2", limit=300)) == 200


async def test_a_late_beat_before_the_reaper_saves_the_run_and_one_after_it_does_not(
    ledger: Ledger,
) -> None:
    saved, dead = await abandoned(ledger), await abandoned(ledger)
    (beaten,) = await ledger.heartbeat([replace(saved, ttl=timedelta(seconds=60))])

    (reaped,) = await ledger.reap()
    (lost,) = await ledger.heartbeat([dead])

    assert reaped.run_id == dead.run_id
    assert (beaten.lost, lost.lost) == (False, True)
    with pytest.raises(LeaseLost):
        await ledger.transition(dead, State.COMPLETED)
    assert (await ledger.transition(beaten, State.COMPLETED)).state == State.COMPLETED


async def test_what_was_reaped_goes_before_younger_runs(ledger: Ledger) -> None:
    lease = await abandoned(ledger)
    await ledger.submit("parse")
    await ledger.reap()

    (again,) = await ledger.claim("w:2")

    assert again.run_id == lease.run_id


async def test_costs_and_steps_of_a_lost_attempt_stay_counted(ledger: Ledger) -> None:
    lease = await claimed(ledger, ttl=TINY)
    await ledger.transition(lease, State.WAITING_TOOL, cost_usd_delta=2, step_count_delta=4)
    await lapsed(ledger, lease)

    (run,) = await ledger.reap()

    assert (run.cost_usd, run.step_count) == (Decimal(2), 4)


async def test_a_sweep_without_sensible_bounds_is_refused(ledger: Ledger) -> None:
    for limit in (0, -1, 10_001):
        with pytest.raises(InvalidValue, match="limit"):
            await ledger.reap(limit=limit)


async def test_a_reaper_leaves_other_projects_alone(ledger: Ledger, database: str) -> None:
    lease = await abandoned(ledger)

    async with Ledger.open(database, "other", create_project=True) as other:
        assert await other.reap() == []

    assert (await ledger.get(lease.run_id)).token == lease.token


PAUSING_CLOCK = """
CREATE OR REPLACE FUNCTION ledger.clock() RETURNS timestamptz LANGUAGE plpgsql VOLATILE AS $$
BEGIN -- in the statement of a sweep that locks runs, before the first is locked
  IF current_setting('application_name') = 'sweeper' AND EXISTS (SELECT FROM pg_locks
    WHERE pid = pg_backend_pid() AND mode = 'RowShareLock'
    AND relation = 'ledger.run_state'::regclass) THEN
    PERFORM pg_advisory_lock_shared(1);
    PERFORM pg_advisory_unlock_shared(1);
  END IF;
  RETURN clock_timestamp();
END $$
"""


async def test_a_sweep_goes_on_after_a_run_that_changed_before_it_was_locked(
    ledger: Ledger, database: str, connection: asyncpg.Connection
) -> None:
    over = await abandoned(ledger, deadline=TINY)
    saved, dead = await abandoned(ledger), await abandoned(ledger)
    await connection.execute(PAUSING_CLOCK)
    sweeper = await asyncpg.connect(
        driver_url(database), server_settings={"application_name": "sweeper"}
    )
    await connection.execute("SELECT pg_advisory_lock(1)")

    sweep = asyncio.create_task(
        sweeper.fetch("SELECT run_id FROM ledger.reap($1, 'reaper', 10)", PROJECT)
    )
    await blocked(ledger, sweeper.get_server_pid())
    await ledger.heartbeat([replace(saved, ttl=timedelta(seconds=60))])
    await ledger.complete(over)
    await connection.execute("SELECT pg_advisory_unlock(1)")

    assert [row["run_id"] for row in await sweep] == [dead.run_id]
    await sweeper.close()
