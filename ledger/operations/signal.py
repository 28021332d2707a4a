"""Signal: a value for a run, as the answer to its wait or kept until it asks.

The statement is `ledger/sql/operations/signal.sql`; see docs/decisions/0021.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

from runfold.ledger.errors import DuplicateKey, IllegalTransition, InvalidValue
from runfold.ledger.events import Event, SignalReceived, ToolCompleted, ToolRequested
from runfold.ledger.operations.keys import unless_raced
from runfold.ledger.operations.project import Project
from runfold.ledger.payload import decode_payload, encode_payload, payload_member
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.reading.history import history
from runfold.ledger.reading.past import state_at
from runfold.ledger.reading.runs import get
from runfold.ledger.run import Run
from runfold.ledger.validation import check_run_id, check_text

MAX_NAME: Final = 100
PREFIX: Final = "signal:"
"""Begins the name of the wait for a signal, which is a parked wait for a tool."""
SIGNAL: Final = (
    "SELECT run.* FROM ledger.signal($1, $2, $3, $4, $5, $6, $7) AS signalled"
    " CROSS JOIN LATERAL ledger.read_run($1, signalled.run_id) AS run"
)
_EARLIER: Final = "SELECT run_id, version FROM ledger.command WHERE project_id = $1 AND key = $2"


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
        return await _not_sent(project, row)
    run = Run.from_row(rows[0])
    if run.available_at is not None:  # it was parked, and has its answer
        project.waker.wake()
    return run


async def _not_sent(project: Project, row: SignalRow) -> Run:
    """Return the run after the key's first use; raise the error if there is none."""
    if row.key is not None and (first := await _first(project, row, row.key)) is not None:
        return first
    run = await get(project.pool, project.project_id, row.run_id)
    raise IllegalTransition(row.run_id, run.state, "signalled", "it has ended")


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


async def _first(project: Project, row: SignalRow, key: str) -> Run | None:
    """Return the run after the key's first use, if any; raise DuplicateKey for another command."""
    pool, project_id = project.pool, project.project_id
    rows = await fetch(pool, _EARLIER, project_id, key)
    if not rows:
        return None
    earlier, version = rows[0]["run_id"], rows[0]["version"]
    event = (await history(pool, project_id, earlier, after=version - 1, limit=1))[0]
    stored = payload_member(decode_payload(row.kept), "value")
    same = isinstance(event, SignalReceived) and (event.name, event.value) == (row.name, stored)
    same = same or (isinstance(event, ToolCompleted) and event.output == stored)
    if earlier != row.run_id or not same:
        raise DuplicateKey(key, earlier, version)
    return await state_at(pool, project_id, earlier, version)
