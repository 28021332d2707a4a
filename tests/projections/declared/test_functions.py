"""A projection that is a function: its form, what it is called with, and its errors."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence
from typing import Any

import asyncpg
import pytest

from runfold.ledger import Ledger
from runfold.ledger.errors import InvalidValue
from runfold.ledger.events import Event
from runfold.projections import CatchUp, Projection, ProjectionFailed, install, statuses
from runfold.projections.models.counts import RUN_COUNTS
from runfold.workers.duties.projector import Projector
from tests.support.waiting import until


class Recorder:
    """A callable that notes what it is called with."""

    def __init__(self) -> None:
        self.calls: list[Sequence[Event]] = []

    async def __call__(self, connection: Any, events: Sequence[Event]) -> None:
        """Note the events."""
        assert await connection.fetchval("SELECT 1") == 1
        self.calls.append(events)


def takes_both(_: object, __: object) -> None:
    """Take the arguments, but not as a coroutine."""


async def takes_one(events: object) -> None:
    """Take one argument only."""


async def swapped(events: object, connection: object) -> None:
    """Take the arguments the other way round."""


@pytest.mark.parametrize(
    ("function", "why"),
    [(takes_both, "not async"), (takes_one, "takes others"), (swapped, "in this order")],
)
def test_a_function_of_another_form_is_refused_where_it_is_declared(
    function: Any, why: str
) -> None:
    with pytest.raises(InvalidValue, match=rf"\(connection, events\).*{why}"):
        Projection("outbox", apply=function)


def test_what_is_called_like_an_async_function_is_taken() -> None:
    async def keyed(_: object, connection: object, events: object) -> None: ...

    for function in (Recorder(), functools.partial(keyed, None)):
        assert Projection("outbox", apply=function).apply is function


async def test_a_function_is_never_called_for_nothing(ledger: Ledger) -> None:
    recorder = Recorder()
    outbox = Projection("outbox", apply=recorder, on={"run.completed"})
    await install(ledger.pool, outbox)
    await ledger.submit_many([{"kind": "parse"}] * 5)
    await CatchUp(ledger.pool, outbox, batch=2).to_the_end()
    assert recorder.calls == []

    [lease] = await ledger.claim("w1")
    await ledger.transition(lease, "completed")
    await CatchUp(ledger.pool, outbox).to_the_end()
    assert [[event.type for event in call] for call in recorder.calls] == [["run.completed"]]


async def _commits(connection: Any) -> None:
    await connection.execute("COMMIT")


async def _breaks_the_transaction(connection: Any) -> None:
    try:
        await connection.execute("SELECT 1 / 0")
    except asyncpg.DivisionByZeroError:
        return


async def _takes_from_nothing(_: Any) -> None:
    list[int]().pop()


async def _exits(_: Any) -> None:
    raise SystemExit(3)


async def _cancels(_: Any) -> None:
    raise asyncio.CancelledError


async def _has_no_text(_: Any) -> None:
    raise ValueError("\x00\ud83d")


@pytest.mark.parametrize(
    ("mistake", "reason"),
    [
        (_breaks_the_transaction, "InFailedSQLTransactionError"),
        (_takes_from_nothing, "IndexError: pop from empty list"),
        (_exits, "SystemExit: 3"),
        (_cancels, "CancelledError"),
        (_has_no_text, "ValueError: ?"),
    ],
)
async def test_whatever_a_function_raises_stops_its_projection_and_is_kept_as_the_reason(
    ledger: Ledger, mistake: Any, reason: str
) -> None:
    async def apply(connection: Any, events: Sequence[Event]) -> None:
        await mistake(connection)

    outbox = Projection("outbox", apply=apply)
    await install(ledger.pool, outbox)
    run = await ledger.submit("parse")

    with pytest.raises(ProjectionFailed):
        await CatchUp(ledger.pool, outbox).to_the_end()

    found = {status.name: status for status in await statuses(ledger.pool, {"outbox": outbox})}
    assert (found["outbox"].state, found["outbox"].run_id) == ("failed", run.run_id)
    assert str(found["outbox"].error).startswith(reason)


@pytest.mark.parametrize("mistake", [_commits, _takes_from_nothing, _exits, _cancels])
async def test_a_function_that_fails_leaves_the_other_projections_running(
    ledger: Ledger, mistake: Any
) -> None:
    async def apply(connection: Any, events: Sequence[Event]) -> None:
        await mistake(connection)

    projections = [Projection("outbox", apply=apply), RUN_COUNTS]
    for projection in projections:
        await install(ledger.pool, projection)
    keepers = [asyncio.create_task(Projector(ledger.pool, one).run()) for one in projections]

    async def counted(runs: int) -> bool:
        total = "SELECT coalesce(sum(runs), 0) FROM projection.run_counts"
        return bool(await ledger.pool.fetchval(total) == runs)

    async def failed() -> bool:
        found = {status.name: status for status in await statuses(ledger.pool, {})}
        return found["outbox"].state == "failed"

    try:
        for runs in (1, 2):
            await ledger.submit("parse")
            await until(functools.partial(counted, runs))
        await until(failed)
        assert not any(keeper.done() for keeper in keepers)
    finally:
        for keeper in keepers:
            keeper.cancel()


async def test_a_caller_that_is_cancelled_is_no_failure_of_the_function(ledger: Ledger) -> None:
    started = asyncio.Event()

    async def apply(connection: Any, events: Sequence[Event]) -> None:
        started.set()
        await asyncio.sleep(60)

    outbox = Projection("outbox", apply=apply)
    await install(ledger.pool, outbox)
    await ledger.submit("parse")
    keeper = asyncio.create_task(CatchUp(ledger.pool, outbox).to_the_end())
    await started.wait()
    keeper.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeper

    [status] = [s for s in await statuses(ledger.pool, {}) if s.name == "outbox"]
    assert status.state == "behind"
