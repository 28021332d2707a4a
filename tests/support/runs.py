"""Runs brought to where a test needs them, and short looks at what was recorded of them."""

from __future__ import annotations

from typing import Any, TypeVar
from uuid import UUID

from runfold.ledger import Lease, Ledger, State
from runfold.ledger.events import Event, NoteAdded
from tests.support.waiting import lapsed

TINY = 0.02
"""A lease's time, in seconds, that lapses before anybody looks."""
E = TypeVar("E", bound=Event)


async def claimed(
    ledger: Ledger, worker_id: str = "w:1", *, ttl: float = 60, **submit: Any
) -> Lease:
    """Submit a run and lease it."""
    run = await ledger.submit("parse", **submit)
    leases = await ledger.claim(worker_id, ttl=ttl)
    assert [lease.run_id for lease in leases] == [run.run_id]
    return leases[0]


async def waiting(
    ledger: Ledger, state: State, *, park: bool, ttl: float = 60, **facts: Any
) -> Lease:
    """Submit a run, lease it and have it wait."""
    submit = {"max_attempts": facts.pop("max_attempts", 3), "deadline": facts.pop("deadline", None)}
    lease = await claimed(ledger, ttl=ttl, **submit)
    await ledger.transition(lease, state, park=park, **facts)
    return lease


async def brought_to(ledger: Ledger, state: State) -> tuple[UUID, Lease | None]:
    """Return a run in a state; with its lease where it holds one."""
    if state == State.PENDING:
        return (await ledger.submit("parse")).run_id, None
    lease = await claimed(ledger)
    match state:
        case State.RUNNING:
            return lease.run_id, lease
        case State.WAITING_TOOL | State.WAITING_APPROVAL:
            await ledger.transition(lease, state)
            return lease.run_id, lease
        case _:
            await ledger.transition(lease, state)
            return lease.run_id, None


async def abandoned(
    ledger: Ledger, worker_id: str = "w:1", *, begun: bool = False, **submit: Any
) -> Lease:
    """Submit a run, lease it and let the lease lapse; an attempt that was begun is charged."""
    lease = await claimed(ledger, worker_id, ttl=TINY, **submit)
    if begun:
        await ledger.append(lease, NoteAdded(text="begun"))
    await lapsed(ledger, lease)
    return lease


async def superseded(ledger: Ledger) -> tuple[Lease, Lease]:
    """Return a zombie's lease and the lease of the worker that has its run now."""
    old = await abandoned(ledger, "w:zombie")
    await ledger.reap()
    (new,) = await ledger.claim("w:new")
    assert new.run_id == old.run_id
    return old, new


async def types(ledger: Ledger, run_id: UUID) -> list[str]:
    """Name the types of a run's events."""
    return [event.type for event in await ledger.history(run_id)]


async def newest(ledger: Ledger, run_id: UUID, model: type[E]) -> E:
    """Return a run's newest event, which must be of this type."""
    event = (await ledger.history(run_id))[-1]
    assert isinstance(event, model), event
    return event


async def event_count(ledger: Ledger) -> int:
    """Count the events of the whole database."""
    return int(await ledger.pool.fetchval("SELECT count(*) FROM ledger.event"))
