"""Signal: a value for a run, as the answer to its wait or kept until it asks.

See docs/decisions/0021.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from runfold.ledger.commands import Transition
from runfold.ledger.errors import DuplicateKey, IllegalTransition, InvalidValue, VersionConflict
from runfold.ledger.events import Event, SignalReceived, ToolCompleted, ToolRequested
from runfold.ledger.lifecycle import TERMINAL, State
from runfold.ledger.operations.append import append
from runfold.ledger.operations.project import Project
from runfold.ledger.operations.transition import Transitions
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.reading.history import history
from runfold.ledger.reading.past import state_at
from runfold.ledger.reading.runs import get
from runfold.ledger.run import Run
from runfold.ledger.validation import check_run_id, check_text

TRIES: Final = 50
"""Concurrent changes of the run that a signal outlasts before it gives up; a beat is one."""
MAX_NAME: Final = 100
PREFIX: Final = "signal:"
"""Begins the name of the wait for a signal, which is a parked wait for a tool."""

_AWAITED: Final = """
SELECT name FROM ledger.event
WHERE project_id = $1 AND run_id = $2 AND type = 'tool.requested'
ORDER BY version DESC LIMIT 1
"""
_EARLIER: Final = "SELECT run_id, version FROM ledger.command WHERE project_id = $1 AND key = $2"


async def signal(
    project: Project,
    transitions: Transitions,
    run_id: UUID | str,
    name: str,
    value: Any,
    *,
    actor: str | None,
    key: str | None,
) -> Run:
    """Append the signal in one event; see `Ledger.signal`.

    Each write names the version it was decided on, so that a run which begins to wait meanwhile
    is not passed by.
    """
    checked = check_run_id(run_id)
    wait_name(name)
    if key is not None and (first := await _first(project, checked, name, value, key)) is not None:
        return first
    too_late: int | None = None
    for attempt in range(1, TRIES + 1):
        run = await get(project.pool, project.project_id, checked)
        if run.state in TERMINAL:
            raise IllegalTransition(checked, run.state, "signalled", "it has ended")
        try:
            if run.version != too_late and await _awaits(project, run, name):
                answer = Transition(
                    checked, State.RUNNING, output=value, expected_version=run.version, key=key
                )
                return await transitions.transition(answer, actor=actor)
            event = SignalReceived(name=name, value=value)
            await append(
                project, checked, event, actor=actor, expected_version=run.version, key=key
            )
            return await get(project.pool, project.project_id, checked)
        except VersionConflict:
            if attempt == TRIES:
                raise
        except IllegalTransition:  # the wait's time is over: the value is kept for the next one
            if attempt == TRIES:
                raise
            too_late = run.version
    raise AssertionError("unreachable")


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


async def _awaits(project: Project, run: Run, name: str) -> bool:
    """Whether the run is parked for this signal and has no answer yet."""
    if run.state != State.WAITING_TOOL or not run.is_parked or run.available_at is not None:
        return False
    rows = await fetch(project.pool, _AWAITED, project.project_id, run.run_id)
    return bool(rows) and _base(rows[0]["name"]) == wait_name(name)


def _base(name: str | None) -> str:
    return (name or "").partition("#")[0]


async def _first(project: Project, run_id: UUID, name: str, value: Any, key: str) -> Run | None:
    """Return the run after the key's first use, if any; raise DuplicateKey for another command."""
    pool, project_id = project.pool, project.project_id
    rows = await fetch(pool, _EARLIER, project_id, check_text("key", key))
    if not rows:
        return None
    earlier, version = rows[0]["run_id"], rows[0]["version"]
    event = (await history(pool, project_id, earlier, after=version - 1))[0]
    same = isinstance(event, SignalReceived) and (event.name, event.value) == (name, value)
    same = same or (isinstance(event, ToolCompleted) and event.output == value)
    if earlier != run_id or not same:
        raise DuplicateKey(key, earlier, version)
    return await state_at(pool, project_id, earlier, version)
