"""Many transitions in one call: each has its own outcome, and holds up no other."""

from __future__ import annotations

from datetime import timedelta

import pytest

from runfold.ledger import Lease, Ledger, Receipt, State, Submit, Transition
from runfold.ledger.errors import (
    DuplicateKey,
    IllegalTransition,
    InvalidValue,
    LeaseLost,
    LedgerError,
    RunNotFound,
    VersionConflict,
)
from runfold.ledger.events import RunCompleted
from tests.support.runs import (
    claimed,
    event_count,
    newest,
    superseded,
)


async def test_many_transitions_give_a_receipt_or_the_error_of_each_in_order(
    ledger: Ledger,
) -> None:
    old, new = await superseded(ledger)
    fine, waits, conflict, dear = [await claimed(ledger, "w:new") for _ in range(4)]
    pending = await ledger.submit("parse")

    results = await ledger.transition_many(
        [
            Transition(old, State.COMPLETED),
            Transition(fine, State.COMPLETED, output=1),
            Transition(waits, State.PENDING),
            Transition(conflict, State.COMPLETED, expected_version=9),
            Transition(dear, State.COMPLETED, cost_usd_delta=-1),
            Transition(pending.run_id, State.CANCELLED),
            Transition("01890000-0000-7000-8000-000000000000", State.CANCELLED),
        ]
    )

    assert [type(result) for result in results] == [
        LeaseLost, Receipt, IllegalTransition, VersionConflict, InvalidValue, Receipt, RunNotFound,
    ]  # fmt: skip
    receipt = results[1]
    assert isinstance(receipt, Receipt)
    run = await ledger.get(fine.run_id)
    assert (receipt.run_id, receipt.version, receipt.hash) == (run.run_id, run.version, run.hash)
    assert run.output == 1
    assert (await ledger.get(pending.run_id)).state == State.CANCELLED
    assert (await ledger.get(new.run_id)).state == State.RUNNING
    assert await ledger.transition_many([]) == []


async def test_many_transitions_with_keys_tell_repeated_from_other_content(ledger: Ledger) -> None:
    one, two, three = [await claimed(ledger) for _ in range(3)]
    (first,) = await ledger.transition_many([Transition(one, State.COMPLETED, output=1, key="a")])
    await ledger.transition(two, State.COMPLETED, output=1, key="b")

    results = await ledger.transition_many(
        [
            Transition(one, State.COMPLETED, output=1, key="a"),
            Transition(two, State.COMPLETED, output=2, key="b"),
            Transition(three, State.COMPLETED, output=1, key="c"),
        ]
    )

    assert results[0] == first
    assert isinstance(results[1], DuplicateKey)
    assert isinstance(results[2], Receipt)


async def test_each_key_of_one_call_names_its_own_command(ledger: Ledger) -> None:
    ends = [Transition(await claimed(ledger), State.COMPLETED, output=key, key=key) for key in "ab"]

    first = await ledger.transition_many(ends)

    assert [type(outcome) for outcome in first] == [Receipt] * 2
    assert await ledger.transition_many(ends) == first


async def test_one_key_on_two_runs_of_one_call_is_an_error_about_the_key(ledger: Ledger) -> None:
    one, two, three = [await claimed(ledger) for _ in range(3)]

    try:
        results: list[Receipt | LedgerError] = await ledger.transition_many(
            [
                Transition(one, State.COMPLETED, key="k"),
                Transition(two, State.COMPLETED, key="k"),
                Transition(three, State.COMPLETED),
            ]
        )
    except (InvalidValue, DuplicateKey):
        assert await ledger.runs(state=State.COMPLETED) == []
        return

    assert not [result for result in results if isinstance(result, IllegalTransition)]
    assert [isinstance(result, DuplicateKey) for result in results[:2]].count(True) == 1
    assert isinstance(results[2], Receipt)


async def test_a_total_that_does_not_fit_does_not_hold_up_the_other_commands(
    ledger: Ledger,
) -> None:
    full, fine = await claimed(ledger), await claimed(ledger)
    await ledger.transition(full, State.WAITING_TOOL, step_count_delta=2**31 - 1)

    results = await ledger.transition_many(
        [Transition(full, State.RUNNING, step_count_delta=1), Transition(fine, State.COMPLETED)]
    )

    assert isinstance(results[0], InvalidValue)
    assert isinstance(results[1], Receipt)


async def test_a_senseless_command_in_a_batch_is_an_error_and_nothing_is_written(
    ledger: Ledger,
) -> None:
    one, two = await claimed(ledger), await claimed(ledger)
    before = await event_count(ledger)

    with pytest.raises(InvalidValue, match="park"):
        await ledger.transition_many(
            [Transition(one, State.COMPLETED), Transition(two, State.FAILED, park=True)]
        )
    with pytest.raises(InvalidValue, match=str(one.run_id)):
        await ledger.transition_many(
            [Transition(one, State.COMPLETED), Transition(one.run_id, State.FAILED)]
        )

    assert await event_count(ledger) == before


async def test_each_of_many_transitions_is_recorded_under_the_worker_that_holds_its_lease(
    ledger: Ledger,
) -> None:
    leases: list[Lease] = [await claimed(ledger, f"w:{i}") for i in range(3)]

    await ledger.transition_many([Transition(lease, State.COMPLETED) for lease in leases])

    actors = [(await newest(ledger, lease.run_id, RunCompleted)).actor for lease in leases]
    assert actors == ["w:0", "w:1", "w:2"]


async def test_two_hundred_lifecycles_end_in_one_statement_each_with_its_own_output(
    ledger: Ledger,
) -> None:
    await ledger.submit_many([Submit(kind="parse", input=i) for i in range(200)])
    leases = await ledger.claim("w:1", limit=200, ttl=timedelta(seconds=60))

    results = await ledger.transition_many(
        [Transition(lease, State.COMPLETED, output=lease.input) for lease in reversed(leases)]
    )

    assert all(isinstance(result, Receipt) for result in results)
    runs = await ledger.runs(state=State.COMPLETED, limit=200)
    assert [run.output for run in runs] == [run.input for run in runs]
    assert len(runs) == 200
