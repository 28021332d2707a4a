"""Decide: grant or refuse the approval that a run waits for; a refused decision is noted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

from runfold.ledger.commands import Transition
from runfold.ledger.errors import (
    DecisionRefused,
    IllegalTransition,
    LedgerError,
    VersionConflict,
)
from runfold.ledger.events import ApprovalRequested, Event, NoteAdded
from runfold.ledger.lifecycle import AFTER_TERMINAL, State
from runfold.ledger.operations.append import append
from runfold.ledger.operations.project import Project
from runfold.ledger.operations.transition import Transitions
from runfold.ledger.reading.history import history
from runfold.ledger.reading.runs import get
from runfold.ledger.run import Run

MAX_NOTES: Final = 100
"""Refused decisions that are noted in one run."""
_REFUSED: Final = "decision refused,"


async def decide(
    project: Project,
    transitions: Transitions,
    run_id: UUID | str,
    to_state: State,
    *,
    actor: str,
    reason: str | None,
    output: Any = None,
    expected_version: int | None = None,
    key: str | None = None,
) -> Run:
    """Decide on the approval by a transition; see `Ledger.approve` and `Ledger.reject`."""
    run = await get(project.pool, project.project_id, run_id)
    expects = expected_version
    if expects is None and run.is_parked:
        expects = run.version
    try:
        if run.state == State.WAITING_APPROVAL:
            command = Transition(
                run.run_id,
                to_state,
                reason=reason,
                output=output,
                expected_version=expects,
                key=key,
            )
            return await transitions.transition(command, actor=actor)
    except (IllegalTransition, VersionConflict, DecisionRefused) as error:
        if isinstance(error, VersionConflict) and expected_version is None:
            since = await history(project.pool, project.project_id, run.run_id, after=run.version)
            # Only remarks were added: it is the same approval.
            if all(event.type in AFTER_TERMINAL for event in since):
                return await decide(
                    project,
                    transitions,
                    run_id,
                    to_state,
                    actor=actor,
                    reason=reason,
                    output=output,
                    key=key,
                )
        refused: LedgerError = error
    else:
        refused = IllegalTransition(run.run_id, run.state, to_state, "it waits for no approval")
    await _note(project, run.run_id, to_state, refused, actor=actor, reason=reason)
    raise refused


def shown_sha256(prompt: str, show: Any = None) -> str:
    """Return the hex SHA-256 of an approval's prompt and content.

    It is taken of their JSON with sorted keys and no spaces.
    """
    shown = {"prompt": prompt, "show": show}
    return sha256(
        json.dumps(shown, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()
    ).hexdigest()


def request(
    prompt: str, show: Any = None, *, role: str | None = None, other_person: bool = False
) -> dict[str, Any]:
    """Return the content of an approval's request, with the digest of what is shown."""
    content = {"prompt": prompt, "show": show, "shown_sha256": shown_sha256(prompt, show)}
    if role is not None:
        content["role"] = role
    if other_person:
        content["other_person"] = True
    return content


async def _note(
    project: Project,
    run_id: UUID,
    to_state: State,
    refused: LedgerError,
    *,
    actor: str,
    reason: str | None,
) -> None:
    events = await history(project.pool, project.project_id, run_id)
    note = refused_decision(events, to_state, refused, reason)
    if note is not None:
        await append(project, run_id, note, actor=actor)


def refused_decision(
    events: Sequence[Event], to_state: State, error: Exception, reason: str | None
) -> NoteAdded | None:
    """Return the note of a refused decision; None where no approval was ever asked for.

    None also after one hundred notes in a run.
    """
    was_asked = any(isinstance(event, ApprovalRequested) for event in events)
    noted = sum(
        isinstance(event, NoteAdded) and (event.text or "").startswith(_REFUSED) for event in events
    )
    if not was_asked or noted >= MAX_NOTES:
        return None
    decision = "yes" if to_state == State.RUNNING else "no"
    because = f" (the reason given: {reason})" if reason else ""
    return NoteAdded(text=f"{_REFUSED} {decision}: {error}{because}")
