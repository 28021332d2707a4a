"""Approvals that lapse return to their handler."""

from __future__ import annotations

import pytest

from runfold.ledger import State
from runfold.ledger.errors import (
    IllegalTransition,
)
from runfold.ledger.events import (
    ApprovalLapsed,
)
from runfold.workers import (
    BlockingContext,
    Context,
    handler,
)
from runfold.workers.testing import Kit


@handler("patient")
async def patient(ctx: Context) -> str:
    decision = await ctx.approval("Ship?", timeout=60, on_timeout="lapsed")
    await ctx.step("after", lambda: 1)
    return "nobody" if decision.lapsed else decision.actor


@handler("blocking patience")
def blocking_patience(ctx: BlockingContext) -> bool:
    return ctx.approval("Ship?", timeout=0.5, on_timeout="lapsed").lapsed


async def test_an_approval_that_nobody_decides_returns_to_a_handler_that_asked_for_that(
    runfold: Kit,
) -> None:
    async with runfold as kit:
        run = await kit.ledger.submit("patient")
        [waits] = await kit.run_until_idle(patient)
        assert waits.state == State.WAITING_APPROVAL
        assert await kit.ledger.reap() == []
        await kit.move_time(61)
        assert await kit.run_until_idle(patient) == []

        after = await kit.ledger.get(run.run_id)
        assert (after.output, after.attempt_count, after.error_code) == ("nobody", 1, None)
        events = await kit.assert_history(
            run,
            [
                "run.submitted", "lease.acquired", "approval.requested", "approval.lapsed",
                "lease.acquired", "step.completed", "run.completed",
            ],
        )  # fmt: skip
        lapsed = events[3]
        assert isinstance(lapsed, ApprovalLapsed)
        assert (lapsed.actor, lapsed.error_code, lapsed.state) == ("reaper", "E-RUN-003", None)


async def test_an_approval_that_lapsed_stays_so_when_the_worker_dies_before_it_goes_on(
    runfold: Kit,
) -> None:
    async with runfold as kit:
        run = await kit.ledger.submit("patient")
        await kit.run_until_idle(patient)
        await kit.move_time(61)
        await kit.ledger.reap()
        with pytest.raises(IllegalTransition):
            await kit.approve(run)
        [lease] = await kit.ledger.claim("dies")
        await kit.lose_lease(lease.run_id)
        await kit.run_until_idle(patient)
        after = await kit.ledger.get(run.run_id)
        assert (after.output, after.attempt_count) == ("nobody", 2)


async def test_a_decision_in_time_is_one_though_the_approval_may_lapse(runfold: Kit) -> None:
    async with runfold as kit:
        run = await kit.ledger.submit("patient")
        await kit.run_until_idle(patient)
        await kit.approve(run, actor="ann")
        await kit.move_time(61)
        await kit.run_until_idle(patient)
        assert (await kit.ledger.get(run.run_id)).output == "ann"


async def test_an_approval_returns_to_a_plain_function_too(runfold: Kit) -> None:
    async with runfold as kit:
        run = await kit.ledger.submit("blocking patience")
        await kit.run_until_idle(blocking_patience)
        await kit.move_time(1)
        await kit.run_until_idle(blocking_patience)
        assert (await kit.ledger.get(run.run_id)).output is True
