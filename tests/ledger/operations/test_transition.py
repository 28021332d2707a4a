"""Transitions: every legal edge, no illegal one, and the facts that come with them."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from hashlib import sha256
from typing import Any

import pytest

from runfold.ledger import Ledger, State
from runfold.ledger.errors import (
    DuplicateKey,
    IllegalTransition,
    InvalidValue,
    LeaseLost,
    LeaseRequired,
    RunNotFound,
    VersionConflict,
)
from runfold.ledger.events import RunCompleted, RunFailed, StepCompleted, WriteRefused
from runfold.ledger.lifecycle import EDGES, TERMINAL, WAITING
from tests.support.runs import (
    abandoned,
    brought_to,
    claimed,
    event_count,
    newest,
    superseded,
    types,
    waiting,
)

LEGAL = {(source, target) for source, targets in EDGES.items() for target in targets}
BY_LEASE = [
    (State.RUNNING, State.WAITING_TOOL, "tool.requested"),
    (State.RUNNING, State.WAITING_APPROVAL, "approval.requested"),
    (State.RUNNING, State.COMPLETED, "run.completed"),
    (State.RUNNING, State.FAILED, "run.failed"),
    (State.RUNNING, State.CANCELLED, "run.cancelled"),
    (State.RUNNING, State.TIMEOUT, "run.timed_out"),
    (State.WAITING_TOOL, State.RUNNING, "tool.completed"),
    (State.WAITING_TOOL, State.FAILED, "run.failed"),
    (State.WAITING_TOOL, State.CANCELLED, "run.cancelled"),
    (State.WAITING_APPROVAL, State.CANCELLED, "run.cancelled"),
    (State.WAITING_APPROVAL, State.TIMEOUT, "run.timed_out"),
]
OUTPUT_SHA256 = sha256(b"output").hexdigest()


def test_the_table_of_edges_is_the_one_of_the_design() -> None:
    ends = {State.COMPLETED, State.FAILED, State.CANCELLED, State.TIMEOUT}

    assert EDGES[State.PENDING] == {State.RUNNING, State.CANCELLED}
    assert EDGES[State.RUNNING] == {State.WAITING_TOOL, State.WAITING_APPROVAL} | ends
    assert EDGES[State.WAITING_TOOL] == {State.RUNNING, State.FAILED, State.CANCELLED}
    assert EDGES[State.WAITING_APPROVAL] == {State.RUNNING, State.CANCELLED, State.TIMEOUT}
    assert all(not EDGES[end] for end in ends)
    by_lease = {(source, target) for source, target, _ in BY_LEASE}
    without = {
        (State.PENDING, State.RUNNING),
        (State.PENDING, State.CANCELLED),
        (State.WAITING_APPROVAL, State.RUNNING),  # nobody grants what they asked for
    }
    assert by_lease | without == LEGAL
    assert not by_lease & without


async def test_a_legal_edge_under_a_lease_is_one_event_of_its_type(
    ledger: Ledger, subtests: pytest.Subtests
) -> None:
    for source, target, type_ in BY_LEASE:
        with subtests.test(f"{source}-{target}"):
            run_id, lease = await brought_to(ledger, source)
            assert lease is not None
            before = await ledger.get(run_id)

            run = await ledger.transition(lease, target)
            event = (await ledger.history(run_id))[-1]

            assert (event.type, event.state, event.version, event.actor) == (
                type_,
                target,
                before.version + 1,
                "w:1",
            )
            assert (run.state, run.version, run.hash) == (target, event.version, event.hash)
            assert run == await ledger.get(run_id)
            if target in TERMINAL:
                assert run.completed_at == event.recorded_at == run.updated_at
                assert (run.token, run.worker_id, run.lease_until, run.available_at) == (None,) * 4
                assert run.is_terminal
            else:
                assert (run.token, run.worker_id, run.lease_until) == (
                    lease.token,
                    "w:1",
                    lease.until,
                )
                assert run.completed_at is None


async def test_an_illegal_edge_is_refused_and_appends_nothing(
    ledger: Ledger, subtests: pytest.Subtests
) -> None:
    for source in sorted(State):
        with subtests.test(source.value):
            for target in sorted(set(State) - EDGES[source]):
                run_id, lease = await brought_to(ledger, source)
                before = await ledger.get(run_id)

                if lease is not None:
                    with pytest.raises(IllegalTransition) as under_lease:
                        await ledger.transition(lease, target)
                    error = under_lease.value
                    assert (error.run_id, error.from_state, error.to_state) == (
                        run_id,
                        source,
                        target,
                    )
                with pytest.raises((IllegalTransition, LeaseRequired)) as by_id:
                    await ledger.transition(run_id, target)
                assert isinstance(by_id.value, IllegalTransition) or lease is not None
                assert str(run_id) in str(by_id.value)

                assert await ledger.get(run_id) == before
                assert len(await ledger.history(run_id)) == before.version
                if not before.is_terminal:
                    await ledger.cancel(run_id)


@pytest.mark.parametrize("state", sorted(WAITING))
async def test_a_parked_run_takes_the_same_edges_by_its_id_unless_a_person_decides(
    ledger: Ledger, state: State
) -> None:
    for target in sorted(State):
        lease = await waiting(ledger, state, park=True)
        before = await ledger.get(lease.run_id)

        if target in EDGES[state] and state != State.WAITING_APPROVAL:
            run = await ledger.transition(
                lease.run_id, target, actor="ann", expected_version=before.version
            )
            assert run.version == before.version + 1
            assert run.state == (state if target == State.RUNNING else target)
        else:
            with pytest.raises(IllegalTransition):
                await ledger.transition(lease.run_id, target, actor="ann")
            assert await ledger.get(lease.run_id) == before
        if not (await ledger.get(lease.run_id)).is_terminal:
            await ledger.cancel(lease.run_id)


async def test_a_pending_run_is_cancelled_by_its_id_and_becomes_running_only_by_a_claim(
    ledger: Ledger,
) -> None:
    run = await ledger.submit("parse")

    with pytest.raises(LeaseRequired, match="claim"):
        await ledger.transition(run.run_id, State.RUNNING)
    done = await ledger.transition(str(run.run_id), "cancelled", actor="ann", reason="no need")

    assert (done.state, done.available_at) == (State.CANCELLED, None)
    assert await types(ledger, run.run_id) == ["run.submitted", "run.cancelled"]
    assert await ledger.claim("w:1") == []


# -- facts -----------------------------------------------------------------------------------------


async def test_a_transition_carries_its_facts_into_the_run_and_the_history(ledger: Ledger) -> None:
    lease = await claimed(ledger)

    run = await ledger.transition(
        lease, State.COMPLETED, name="summary", output={"lines": [1, 2]},
        output_sha256=OUTPUT_SHA256.upper(),
        cost_usd_delta=0.25, step_count_delta=3, reason="all read",
    )  # fmt: skip
    event = await newest(ledger, lease.run_id, RunCompleted)

    assert (run.output, run.output_sha256) == ({"lines": [1, 2]}, OUTPUT_SHA256)
    assert (run.cost_usd, run.step_count) == (Decimal("0.25"), 3)
    assert (run.error_code, run.error_detail) == (None, None)
    assert (event.name, event.reason, event.output) == ("summary", "all read", {"lines": [1, 2]})
    assert (event.cost_usd, event.step_count) == (Decimal("0.25"), 3)
    assert event.output_sha256 == bytes.fromhex(OUTPUT_SHA256)


async def test_a_failure_carries_its_code_and_detail(ledger: Ledger) -> None:
    lease = await claimed(ledger)

    run = await ledger.transition(
        lease, State.FAILED, error_code="E-TOOL-007", error_detail={"trace": ["a", "b"], "exit": 1}
    )
    event = await newest(ledger, lease.run_id, RunFailed)

    assert (run.error_code, run.error_detail) == ("E-TOOL-007", {"trace": ["a", "b"], "exit": 1})
    assert (event.error_code, event.error_detail) == (run.error_code, run.error_detail)


async def test_an_output_digest_may_be_given_as_bytes_and_without_the_output(
    ledger: Ledger,
) -> None:
    lease = await claimed(ledger)

    run = await ledger.transition(
        lease, State.COMPLETED, output_sha256=bytes.fromhex(OUTPUT_SHA256)
    )

    assert (run.output, run.output_sha256) == (None, OUTPUT_SHA256)


async def test_costs_and_steps_add_up_over_the_runs_life(ledger: Ledger) -> None:
    lease = await claimed(ledger)
    await ledger.append(
        lease, StepCompleted(name="one", cost_usd=Decimal("0.000001"), step_count=1)
    )
    await ledger.transition(
        lease, State.WAITING_TOOL, cost_usd_delta=Decimal("0.1"), step_count_delta=2
    )
    await ledger.transition(
        lease, State.RUNNING, cost_usd_delta=Decimal("-0.05"), step_count_delta=-1
    )
    await ledger.retry(lease)
    (again,) = await ledger.claim("w:2")

    run = await ledger.transition(again, State.COMPLETED, cost_usd_delta=1e-6, step_count_delta=5)

    assert (run.cost_usd, run.step_count) == (Decimal("0.050002"), 7)


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        ({"cost_usd_delta": Decimal("-0.500001")}, "cost_usd_delta"),
        ({"step_count_delta": -3}, "step_count_delta"),
    ],
)
async def test_no_total_falls_below_zero(ledger: Ledger, facts: dict[str, Any], name: str) -> None:
    lease = await claimed(ledger)
    await ledger.transition(lease, State.WAITING_TOOL, cost_usd_delta=0.5, step_count_delta=2)
    before = await ledger.get(lease.run_id)

    with pytest.raises(InvalidValue, match="below zero") as caught:
        await ledger.transition(lease, State.RUNNING, **facts)
    assert await ledger.get(lease.run_id) == before
    run = await ledger.transition(lease, State.RUNNING, cost_usd_delta=-0.5, step_count_delta=-2)

    assert caught.value.name == name
    assert (run.cost_usd, run.step_count) == (Decimal(0), 0)


async def test_a_step_total_that_no_longer_fits_is_an_error_that_names_it(ledger: Ledger) -> None:
    lease = await claimed(ledger)
    await ledger.transition(lease, State.WAITING_TOOL, step_count_delta=2**31 - 1)
    before = await event_count(ledger)

    with pytest.raises(InvalidValue, match="step_count"):
        await ledger.transition(lease, State.RUNNING, step_count_delta=1)

    assert await event_count(ledger) == before


async def test_a_transition_after_the_leases_end_counts_while_nobody_took_the_run(
    ledger: Ledger,
) -> None:
    lease = await abandoned(ledger)

    run = await ledger.transition(lease, State.COMPLETED)

    assert run.state == State.COMPLETED
    assert await ledger.reap() == []


# -- the fence -------------------------------------------------------------------------------------


async def test_a_zombies_transition_is_refused_and_the_refusal_recorded_once(
    ledger: Ledger,
) -> None:
    old, new = await superseded(ledger)

    for _ in range(2):
        with pytest.raises(LeaseLost) as caught:
            await ledger.transition(old, State.COMPLETED, output="stale", cost_usd_delta=5)
    event = await newest(ledger, old.run_id, WriteRefused)
    run = await ledger.get(old.run_id)

    error = caught.value
    assert (error.run_id, error.token, error.current_token) == (old.run_id, old.token, new.token)
    assert (error.state, error.worker_id) == (State.RUNNING, "w:new")
    assert (event.name, event.token, event.worker_id) == ("transition", old.token, "w:zombie")
    assert (await types(ledger, old.run_id)).count("write.refused") == 1
    assert (run.state, run.token, run.output, run.cost_usd) == (
        State.RUNNING,
        new.token,
        None,
        Decimal(0),
    )
    assert (await ledger.transition(new, State.COMPLETED)).state == State.COMPLETED


async def test_a_zombie_is_refused_after_the_run_has_ended_too(ledger: Ledger) -> None:
    old, new = await superseded(ledger)
    done = await ledger.transition(new, State.COMPLETED, output="mine")

    with pytest.raises(LeaseLost):
        await ledger.transition(old, State.FAILED, error_code="E")
    with pytest.raises(LeaseLost):
        await ledger.transition(new, State.FAILED, error_code="E")
    run = await ledger.get(old.run_id)

    assert (run.state, run.output, run.error_code) == (State.COMPLETED, "mine", None)
    assert run.completed_at == done.completed_at
    assert (await types(ledger, old.run_id))[-3:] == [
        "run.completed",
        "write.refused",
        "write.refused",
    ]


async def test_a_forged_token_is_refused(ledger: Ledger) -> None:
    lease = await claimed(ledger)

    for token in (0, -1, 1, 3, 2**31 - 1):
        with pytest.raises(LeaseLost):
            await ledger.transition(replace(lease, token=token), State.COMPLETED)

    assert (await ledger.get(lease.run_id)).state == State.RUNNING


@pytest.mark.parametrize("state", [State.RUNNING, State.WAITING_TOOL])
async def test_a_bare_run_id_is_no_way_around_the_fence(ledger: Ledger, state: State) -> None:
    run_id, _ = await brought_to(ledger, state)
    before = await event_count(ledger)

    for target in sorted(EDGES[state]):
        with pytest.raises(LeaseRequired) as caught:
            await ledger.transition(run_id, target)
        assert (caught.value.worker_id, caught.value.state) == ("w:1", state)

    assert await event_count(ledger) == before


async def test_a_lease_from_before_the_parking_is_no_lease(ledger: Ledger) -> None:
    lease = await waiting(ledger, State.WAITING_TOOL, park=True)

    with pytest.raises(LeaseLost):
        await ledger.transition(lease, State.RUNNING)

    assert (await ledger.get(lease.run_id)).available_at is None


async def test_a_run_of_another_project_is_not_found_with_or_without_its_lease(
    ledger: Ledger, database: str
) -> None:
    lease = await claimed(ledger)
    before = await event_count(ledger)

    async with Ledger.open(database, "other", create_project=True) as other:
        for target in (lease, lease.run_id):
            with pytest.raises(RunNotFound, match="other"):
                await other.transition(target, State.CANCELLED)

    assert await event_count(ledger) == before


# -- expected version and keys ---------------------------------------------------------------------


async def test_a_transition_that_expects_another_version_is_a_conflict_that_names_both(
    ledger: Ledger,
) -> None:
    lease = await claimed(ledger)
    await ledger.heartbeat([lease])

    with pytest.raises(VersionConflict) as caught:
        await ledger.transition(lease, State.COMPLETED, expected_version=2)
    assert await types(ledger, lease.run_id) == [
        "run.submitted",
        "lease.acquired",
        "lease.heartbeat",
    ]
    run = await ledger.transition(lease, State.COMPLETED, expected_version=3)

    assert (caught.value.run_id, caught.value.expected, caught.value.actual) == (lease.run_id, 2, 3)
    assert run.version == 4


async def test_the_same_key_and_content_give_the_first_outcome_and_append_nothing(
    ledger: Ledger,
) -> None:
    lease = await claimed(ledger)
    facts: dict[str, Any] = {
        "output": {"a": 1},
        "cost_usd_delta": 0.5,
        "step_count_delta": 1,
        "key": "k",
    }
    first = await ledger.transition(lease, State.COMPLETED, **facts)

    again = await ledger.transition(lease, State.COMPLETED, **facts)

    assert again == first
    assert len(await ledger.history(lease.run_id)) == first.version


async def test_a_repeated_key_gives_the_first_outcome_after_the_run_has_moved_on(
    ledger: Ledger,
) -> None:
    lease = await claimed(ledger)
    first = await ledger.transition(lease, State.WAITING_TOOL, key="k")
    await ledger.transition(lease, State.RUNNING)
    before = await event_count(ledger)

    again = await ledger.transition(lease, State.WAITING_TOOL, key="k")

    assert await event_count(ledger) == before
    assert (again.version, again.state) == (first.version, first.state)


async def test_the_same_key_with_other_content_is_an_error_that_names_both(ledger: Ledger) -> None:
    lease = await claimed(ledger)
    first = await ledger.transition(lease, State.COMPLETED, output=1, key="k")
    others: list[dict[str, Any]] = [
        {"to_state": State.FAILED},
        {"name": "other"},
        {"error_code": "E"},
        {"output": 2},
        {"output_sha256": OUTPUT_SHA256},
        {"cost_usd_delta": 1},
        {"step_count_delta": 1},
        {"reason": "other"},
    ]

    for other in others:
        given: dict[str, Any] = {"to_state": State.COMPLETED, "output": 1, "key": "k"} | other
        with pytest.raises(DuplicateKey) as caught:
            await ledger.transition(lease, given.pop("to_state"), **given)
        assert (caught.value.key, caught.value.run_id, caught.value.version) == (
            "k",
            lease.run_id,
            first.version,
        )

    assert len(await ledger.history(lease.run_id)) == first.version


@pytest.mark.parametrize("other", [{"wait": 99}, {"wait_outcome": State.TIMEOUT}, {"park": True}])
async def test_how_long_an_approval_may_take_is_part_of_the_content_of_a_key(
    ledger: Ledger, other: dict[str, Any]
) -> None:
    lease = await claimed(ledger)
    same: dict[str, Any] = {"wait": 10, "wait_outcome": State.CANCELLED, "key": "k"}
    await ledger.transition(lease, State.WAITING_APPROVAL, **same)

    with pytest.raises(DuplicateKey):
        await ledger.transition(lease, State.WAITING_APPROVAL, **(same | other))


async def test_a_key_that_named_another_run_or_a_submit_is_a_duplicate(ledger: Ledger) -> None:
    submitted = await ledger.submit("parse", key="submitted")
    (one,) = await ledger.claim("w:1")
    two = await claimed(ledger)
    await ledger.transition(one, State.COMPLETED, key="k")

    with pytest.raises(DuplicateKey) as other_run:
        await ledger.transition(two, State.COMPLETED, key="k")
    with pytest.raises(DuplicateKey) as other_command:
        await ledger.transition(two, State.COMPLETED, key="submitted")
    with pytest.raises(DuplicateKey):
        await ledger.submit("parse", key="k")

    assert other_run.value.run_id == one.run_id
    assert (other_command.value.run_id, other_command.value.version) == (submitted.run_id, 1)
    assert await types(ledger, two.run_id) == ["run.submitted", "lease.acquired"]


async def test_a_refused_transition_does_not_use_its_key_up(ledger: Ledger) -> None:
    lease = await claimed(ledger)
    with pytest.raises(IllegalTransition):
        await ledger.transition(lease, State.PENDING, key="k")

    run = await ledger.transition(lease, State.COMPLETED, key="k")

    assert run.state == State.COMPLETED
