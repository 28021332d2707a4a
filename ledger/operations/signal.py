"""Signals: a value for a run, given as the answer to its wait, or kept until it asks. See docs/decisions/0021."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from runfold.ledger.errors import DuplicateKey, IllegalTransition, InvalidValue, VersionConflict
from runfold.ledger.events import Event, SignalReceived, ToolCompleted, ToolRequested
from runfold.ledger.lifecycle import TERMINAL, State
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.validation import check_text

if TYPE_CHECKING:
    from runfold.ledger.ledger import Ledger
    from runfold.ledger.run import Run

TRIES: Final = 50
"""Versions of a run that may pass a signal by; a beat is one."""
MAX_NAME: Final = 100
PREFIX: Final = "signal:"
"""Begins the name of the wait for a signal, which is a parked wait for a tool."""

_AWAITED: Final = """
SELECT name FROM ledger.event WHERE project_id = $1 AND run_id = $2 AND type = 'tool.requested' ORDER BY version DESC LIMIT 1
"""
_EARLIER: Final = "SELECT run_id, version FROM ledger.command WHERE project_id = $1 AND key = $2"


def wait_name(name: str) -> str:
    """Name the wait for a signal; raises InvalidValue."""
    if "#" in check_text("name of a signal", name, limit=MAX_NAME):
        raise InvalidValue(
            "name of a signal", name, "must not contain #, which counts the waits of one name"
        )
    return PREFIX + name


async def send(
    ledger: Ledger, run_id: UUID, name: str, value: Any, *, actor: str | None, key: str | None
) -> Run:
    """Give the value to the run, in one event; see `Ledger.signal`.

    Each write names the version it was decided on, so that a run which begins to wait meanwhile is not passed by.
    """
    wanted = wait_name(name)
    if key is not None and (first := await _first(ledger, run_id, name, value, key)) is not None:
        return first
    too_late: int | None = None
    for attempt in range(1, TRIES + 1):
        run = await ledger.get(run_id)
        if run.state in TERMINAL:
            raise IllegalTransition(run_id, run.state, "signalled", "it has ended")
        try:
            if (
                run.state == State.WAITING_TOOL
                and run.is_parked
                and run.available_at is None
                and run.version != too_late
            ):
                rows = await fetch(ledger.pool, _AWAITED, ledger.project_id, run_id)
                if rows and _base(rows[0]["name"]) == wanted:
                    return await ledger.transition(
                        run_id,
                        State.RUNNING,
                        output=value,
                        actor=actor,
                        expected_version=run.version,
                        key=key,
                    )
            event = SignalReceived(name=name, value=value)
            await ledger.append(run_id, event, actor=actor, expected_version=run.version, key=key)
            return await ledger.get(run_id)
        except (VersionConflict, IllegalTransition) as error:
            if attempt == TRIES:
                raise
            if isinstance(
                error, IllegalTransition
            ):  # the wait's time is over: the value is kept for the next one
                too_late = run.version
    raise AssertionError("unreachable")


def kept(events: list[Event], name: str) -> SignalReceived | None:
    """Give the oldest signal of this name that no wait has taken yet.

    A wait that found its signal kept was held while it took it; one that was parked had its value as the answer.
    """
    wanted, taken = wait_name(name), 0
    asked: ToolRequested | None = None
    for event in events:
        if isinstance(event, ToolRequested):
            asked = event
        elif isinstance(event, ToolCompleted) and asked is not None:
            taken += asked.token is not None and _base(asked.name) == wanted
            asked = None
    received = [
        event for event in events if isinstance(event, SignalReceived) and event.name == name
    ]
    return received[taken] if taken < len(received) else None


def _base(name: str | None) -> str:
    return (name or "").partition("#")[0]


async def _first(ledger: Ledger, run_id: UUID, name: str, value: Any, key: str) -> Run | None:
    """Give what the key did before, if anything; raise DuplicateKey when that was something else."""
    rows = await fetch(ledger.pool, _EARLIER, ledger.project_id, check_text("key", key))
    if not rows:
        return None
    found, version = rows[0]["run_id"], rows[0]["version"]
    event = (await ledger.history(found, after=version - 1))[0]
    same = isinstance(event, SignalReceived) and (event.name, event.value) == (name, value)
    same = same or (isinstance(event, ToolCompleted) and event.output == value)
    if found != run_id or not same:
        raise DuplicateKey(key, found, version)
    return await ledger.state_at(found, version)
