"""Claiming: who gets which run."""

from __future__ import annotations

from ledger import Ledger, State


async def test_the_oldest_run_of_the_lowest_priority_number_goes_first(ledger: Ledger) -> None:
    late = await ledger.submit("parse", priority=5)
    first = await ledger.submit("parse")
    second = await ledger.submit("parse")

    leases = await ledger.claim("w:1", limit=3)

    assert [lease.run_id for lease in leases] == [first.run_id, second.run_id, late.run_id]


async def test_a_claimed_run_is_running_under_a_token_that_is_the_version_of_its_event(ledger: Ledger) -> None:
    submitted = await ledger.submit("parse", {"path": "a.py"})

    (lease,) = await ledger.claim("w:1")
    run = await ledger.get(submitted.run_id)

    assert (run.state, run.token, run.worker_id, run.attempt_count) == (State.RUNNING, 2, "w:1", 1)
    assert (lease.token, lease.attempt, lease.input) == (2, 1, {"path": "a.py"})
    assert run.lease_until == lease.until
