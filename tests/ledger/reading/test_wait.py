"""Waiting for a run: its end, a state, and what makes the wait end without either."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from runfold.ledger import Ledger, Run, State
from runfold.ledger.errors import AccessDenied, InvalidValue, RunNotFound
from runfold.ledger.reading import runs
from tests.support.databases import PROJECT
from tests.support.logins import grant, login_of, with_login
from tests.support.runs import claimed
from tests.support.waiting import BOUND, until

UNKNOWN = "01890000-0000-7000-8000-000000000000"
PENDING = 0.1


async def still(task: asyncio.Task[Any]) -> bool:
    """Whether a task goes on for a moment, in which it looks several times."""
    await asyncio.wait([task], timeout=PENDING)
    return not task.done()


async def test_a_run_is_waited_for_until_it_has_ended(ledger: Ledger) -> None:
    lease = await claimed(ledger)
    task = asyncio.create_task(ledger.wait(str(lease.run_id)))
    assert await still(task)

    await ledger.complete(lease, output={"lines": 3})

    run = await asyncio.wait_for(task, BOUND)
    assert (run.state, run.output) == (State.COMPLETED, {"lines": 3})
    assert await ledger.wait(run.run_id) == run


async def test_a_run_is_waited_for_until_it_is_in_one_of_the_states(ledger: Ledger) -> None:
    lease = await claimed(ledger)
    states = ["waiting_approval", State.WAITING_TOOL]
    task = asyncio.create_task(ledger.wait(lease.run_id, state=states))
    assert await still(task)

    await ledger.ask_approval(lease, "pay?")

    assert (await asyncio.wait_for(task, BOUND)).state == State.WAITING_APPROVAL


async def test_a_run_that_ends_comes_to_no_other_state(ledger: Ledger) -> None:
    run = await ledger.submit("parse")
    task = asyncio.create_task(ledger.wait(run.run_id, state=State.WAITING_APPROVAL))

    await ledger.cancel(run.run_id)

    assert (await asyncio.wait_for(task, BOUND)).state == State.CANCELLED


async def test_a_run_that_has_gone_on_meanwhile_is_waited_for_again(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = await claimed(ledger)
    get, states = runs.get, list[State]()

    async def gets_late(*given: Any) -> Run:
        if not states:
            await ledger.ask_approval(lease, "pay?")
        run = await get(*given)
        states.append(run.state)
        return run

    monkeypatch.setattr("runfold.ledger.reading.wait.get", gets_late)
    task = asyncio.create_task(ledger.wait(lease.run_id, state="running"))
    await until(lambda: states)
    await ledger.cancel(lease.run_id)

    assert (await asyncio.wait_for(task, BOUND)).state == State.CANCELLED
    assert states == [State.WAITING_APPROVAL, State.CANCELLED]


async def test_a_wait_that_can_have_no_end_is_refused(
    database: str, ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    run = await ledger.submit("parse")
    with pytest.raises(RunNotFound):
        await ledger.wait(UNKNOWN)
    for wrong in ("done", ["pending", "done"], 5, ""):
        with pytest.raises(InvalidValue, match="state"):
            await ledger.wait(run.run_id, state=wrong)  # type: ignore[arg-type]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(PENDING):
            await ledger.wait(run.run_id)

    async with with_login(database, "runfold_reader") as url:
        await grant(connection, login_of(url), ["read"])
        async with Ledger.open(url, PROJECT) as own:
            task = asyncio.create_task(own.wait(run.run_id))
            assert await still(task)
            await grant(connection, login_of(url), ["submit"])
            with pytest.raises(AccessDenied):
                await asyncio.wait_for(task, BOUND)
