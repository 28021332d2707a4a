"""Heartbeats: keeping a lease, learning that it is lost or that somebody wants the run to stop."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from runfold.ledger import Ledger, State, Submit
from runfold.ledger.errors import InvalidValue
from runfold.ledger.events import LeaseHeartbeat, WriteRefused
from tests.support.runs import abandoned, claimed, event_count, newest, superseded, types, waiting


async def test_a_heartbeat_moves_the_end_of_the_lease_and_is_an_event(ledger: Ledger) -> None:
    lease = await claimed(ledger, ttl=60)

    (beaten,) = await ledger.heartbeat([lease])
    run = await ledger.get(lease.run_id)
    event = await newest(ledger, lease.run_id, LeaseHeartbeat)

    assert beaten.until > lease.until
    assert event.recorded_at is not None
    assert (
        run.lease_until
        == beaten.until
        == event.lease_until
        == event.recorded_at + timedelta(seconds=60)
    )
    assert (event.token, event.actor, event.state, event.late_ms) == (
        lease.token,
        "w:1",
        None,
        None,
    )
    assert (run.heartbeat_at, run.token, run.state) == (
        event.recorded_at,
        lease.token,
        State.RUNNING,
    )
    assert (beaten.lost, beaten.cancel_requested, beaten.late_ms) == (False, False, None)
    assert replace(beaten, until=lease.until) == lease


async def test_a_heartbeat_never_shortens_a_lease(ledger: Ledger) -> None:
    lease = await claimed(ledger, ttl=60)

    (beaten,) = await ledger.heartbeat([replace(lease, ttl=timedelta(milliseconds=1))])

    assert beaten.until == lease.until


async def test_many_leases_beat_in_one_call_and_come_back_in_the_order_given(
    ledger: Ledger,
) -> None:
    await ledger.submit_many([Submit(kind="parse")] * 500)
    leases = await ledger.claim("w:1", limit=500)
    shuffled = leases[::2][::-1] + leases[1::2]

    beaten = await ledger.heartbeat(shuffled)

    assert [lease.run_id for lease in beaten] == [lease.run_id for lease in shuffled]
    assert all(
        new.until > old.until and not new.lost for new, old in zip(beaten, shuffled, strict=True)
    )
    assert (
        await ledger.pool.fetchval(
            "SELECT count(*) FROM ledger.event WHERE type = 'lease.heartbeat'"
        )
        == 500
    )
    assert await ledger.heartbeat([]) == []


async def test_a_lost_lease_is_told_apart_from_those_that_are_still_held(ledger: Ledger) -> None:
    old, new = await superseded(ledger)
    held = await claimed(ledger, "w:zombie")

    told = await ledger.heartbeat([old, held])

    assert [lease.lost for lease in told] == [True, False]
    assert [lease.run_id for lease in told] == [old.run_id, held.run_id]
    assert told[0].until == old.until
    assert (await ledger.get(new.run_id)).token == new.token


async def test_the_late_beat_of_a_zombie_is_recorded_once(ledger: Ledger) -> None:
    old, new = await superseded(ledger)

    for _ in range(3):
        (told,) = await ledger.heartbeat([old])
        assert told.lost
    event = await newest(ledger, old.run_id, WriteRefused)

    assert (await types(ledger, old.run_id)).count("write.refused") == 1
    assert (event.name, event.token, event.worker_id, event.actor) == (
        "heartbeat",
        2,
        "w:zombie",
        "w:zombie",
    )
    assert event.state is None
    (fresh,) = await ledger.heartbeat([new])
    assert not fresh.lost


async def test_the_beat_of_a_token_that_the_run_never_had_is_lost_without_a_record(
    ledger: Ledger,
) -> None:
    lease = await claimed(ledger)

    for token in (lease.token - 1, lease.token + 1, 0, -1, 2**31 - 1):
        (told,) = await ledger.heartbeat([replace(lease, token=token, worker_id="w:forger")])
        assert told.lost

    assert await types(ledger, lease.run_id) == ["run.submitted", "lease.acquired"]
    assert (await ledger.get(lease.run_id)).token == lease.token


async def test_the_beat_for_a_finished_run_is_lost_and_leaves_it_finished(ledger: Ledger) -> None:
    lease = await claimed(ledger)
    await ledger.transition(lease, State.COMPLETED)

    (told,) = await ledger.heartbeat([lease])

    assert told.lost
    assert (await types(ledger, lease.run_id))[-2:] == ["run.completed", "write.refused"]
    assert (await ledger.get(lease.run_id)).state == State.COMPLETED


async def test_the_beat_for_a_parked_run_is_lost(ledger: Ledger) -> None:
    lease = await waiting(ledger, State.WAITING_TOOL, park=True)

    (told,) = await ledger.heartbeat([lease])

    assert told.lost


async def test_the_beat_for_a_run_that_is_not_in_the_project_is_lost_and_written_nowhere(
    ledger: Ledger, database: str
) -> None:
    lease = await claimed(ledger)
    before = await event_count(ledger)

    async with Ledger.open(database, "other", create_project=True) as other:
        (told,) = await other.heartbeat([lease])

    assert told.lost
    assert await event_count(ledger) == before


async def test_a_late_beat_is_accepted_while_nobody_took_the_run_and_says_how_late_it_was(
    ledger: Ledger,
) -> None:
    lease = await abandoned(ledger)

    (beaten,) = await ledger.heartbeat([replace(lease, ttl=timedelta(seconds=60))])
    event = await newest(ledger, lease.run_id, LeaseHeartbeat)

    assert not beaten.lost
    assert event.recorded_at is not None
    late = event.recorded_at - lease.until
    assert beaten.late_ms == event.late_ms == late // timedelta(milliseconds=1)
    assert beaten.until == event.recorded_at + timedelta(seconds=60)
    assert await ledger.reap() == []


@pytest.mark.parametrize("state", [State.WAITING_TOOL, State.WAITING_APPROVAL])
async def test_a_held_wait_is_kept_alive_by_heartbeats(ledger: Ledger, state: State) -> None:
    lease = await waiting(ledger, state, park=False)

    (beaten,) = await ledger.heartbeat([lease])

    assert not beaten.lost
    assert beaten.until > lease.until
    assert (await ledger.get(lease.run_id)).state == state


async def test_a_heartbeat_says_that_somebody_asked_to_cancel_and_keeps_saying_it(
    ledger: Ledger,
) -> None:
    lease = await claimed(ledger)
    await ledger.cancel(lease.run_id, actor="ann")

    for _ in range(2):
        (beaten,) = await ledger.heartbeat([lease])
        assert beaten.cancel_requested
        assert not beaten.lost


async def test_a_lease_named_twice_in_one_call_is_an_error_and_nothing_is_written(
    ledger: Ledger,
) -> None:
    lease = await claimed(ledger)
    before = await event_count(ledger)

    with pytest.raises(InvalidValue, match=str(lease.run_id)):
        await ledger.heartbeat([lease, lease])

    assert await event_count(ledger) == before


async def test_each_beat_is_recorded_under_the_worker_that_holds_the_lease(ledger: Ledger) -> None:
    one, two = await claimed(ledger, "w:one"), await claimed(ledger, "w:two")

    await ledger.heartbeat([one, two])

    assert (await newest(ledger, one.run_id, LeaseHeartbeat)).actor == "w:one"
    assert (await newest(ledger, two.run_id, LeaseHeartbeat)).actor == "w:two"
