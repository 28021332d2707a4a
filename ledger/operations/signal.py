"""Signal: a value for a run, as the answer to its wait or kept until it asks.

The statement is `ledger/sql/operations/signal.sql`; see docs/decisions/0021.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

from runfold.ledger.errors import DuplicateKey, IllegalTransition, InvalidValue, RunNotFound
from runfold.ledger.events import Event, SignalReceived, ToolCompleted, ToolRequested
from runfold.ledger.lifecycle import State
from runfold.ledger.operations.keys import CommandRow, first_outcomes, run_after, unless_raced
from runfold.ledger.operations.project import Project
from runfold.ledger.operations.refusal import look
from runfold.ledger.payload import encode_payload
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.run import Receipt, Run
from runfold.ledger.validation import check_run_id, check_text

MAX_NAME: Final = 100
PREFIX: Final = "signal:"
"""Begins the name of the wait for a signal, which is a parked wait for a tool."""
SIGNAL: Final = (
    "SELECT run.* FROM ledger.signal($1, $2, $3, $4, $5, $6, $7) AS signalled"
    " CROSS JOIN LATERAL ledger.read_run($1, signalled.run_id) AS run"
)


class SignalRow(NamedTuple):
    """The parameters of `ledger.signal` after project and actor."""

    run_id: UUID
    name: str
    answer: str | None
    """The payload of the event that answers the run's wait."""
    kept: str | None
    """The payload of the event that is kept until the run asks."""
    key: str | None


async def signal(
    project: Project,
    run_id: UUID | str,
    name: str,
    value: Any,
    *,
    actor: str | None,
    key: str | None,
) -> Run:
    """Append the signal in one event; see `Ledger.signal`."""
    wait_name(name)
    row = SignalRow(
        run_id=check_run_id(run_id),
        name=name,
        answer=encode_payload({"output": value}, project.rules),
        kept=encode_payload({"value": value}, project.rules),
        key=None if key is None else check_text("key", key),
    )
    who = project.actor_or_default(actor)
    rows = await unless_raced(
        lambda: fetch(project.pool, SIGNAL, project.project_id, who, *row), row.key
    )
    if not rows:
        return await _not_sent(project, row, who)
    run = Run.from_row(rows[0])
    if run.available_at is not None:  # it was parked, and has its answer
        project.waker.wake()
    return run


async def _not_sent(project: Project, row: SignalRow, who: str) -> Run:
    """Return the run after the key's first use; raise the error if there is none."""
    pool, project_id = project.pool, project.project_id
    if row.key is not None and (first := await _first(project, row, row.key)) is not None:
        return await run_after(pool, project_id, first)
    runs = await look(pool, project_id, who, "signal", [(row.run_id, None, None)])
    if row.run_id not in runs:
        raise RunNotFound(row.run_id, project_id)
    state = State(runs[row.run_id].state)
    raise IllegalTransition(row.run_id, state, "signalled", "it has ended")


async def _first(project: Project, row: SignalRow, key: str) -> Receipt | None:
    """Return the key's first use, if any; raise DuplicateKey for another command."""
    sent = CommandRow(row.run_id, "signal.received", key, name=row.name, body=row.kept)
    name = wait_name(row.name)
    answered = sent._replace(what=State.RUNNING.value, name=name, body=row.answer)
    other: DuplicateKey | None = None
    for command in (answered, sent):
        outcome = (await first_outcomes(project.pool, project.project_id, [command])).get(key)
        if not isinstance(outcome, DuplicateKey):
            return outcome
        other = outcome
    assert other is not None
    raise other


def wait_name(name: str) -> str:
    """Return the name of the wait for a signal. Raises InvalidValue."""
    if "#" in check_text("name of a signal", name, limit=MAX_NAME):
        raise InvalidValue(
            "name of a signal", name, "must not contain #, which counts the waits of one name"
        )
    return PREFIX + name


def kept_signal(events: Sequence[Event], name: str) -> SignalReceived | None:
    """Return the oldest signal of this name that no wait has taken yet.

    A wait that found its signal kept was held while it took it; one that was parked had its value
    as the answer.
    """
    awaited, taken = wait_name(name), 0
    request: ToolRequested | None = None
    for event in events:
        if isinstance(event, ToolRequested):
            request = event
        elif isinstance(event, ToolCompleted) and request is not None:
            taken += request.token is not None and _base(request.name) == awaited
            request = None
    received = [
        event for event in events if isinstance(event, SignalReceived) and event.name == name
    ]
    return received[taken] if taken < len(received) else None


def _base(name: str | None) -> str:
    return (name or "").partition("#")[0]
