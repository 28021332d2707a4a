"""Decide: grant or refuse the approval that a run waits for; a refused decision is noted."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Final, TypeAlias
from uuid import UUID

from pydantic import BaseModel

from runfold.ledger.commands import Transition
from runfold.ledger.errors import (
    DecisionRefused,
    IllegalTransition,
    InvalidValue,
    LedgerError,
    VersionConflict,
)
from runfold.ledger.events import ApprovalRequested, Event, NoteAdded
from runfold.ledger.lifecycle import State
from runfold.ledger.operations.append import append
from runfold.ledger.operations.project import Project
from runfold.ledger.operations.transition import Transitions
from runfold.ledger.payload import encode_payload
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.reading.history import history
from runfold.ledger.reading.runs import get
from runfold.ledger.run import Run

Request: TypeAlias = Run | ApprovalRequested
"""What a decision names: the event that asked, or the run as it was read while it waited."""

MAX_NOTES: Final = 10
"""Refused decisions that are noted in one run."""
TRIES: Final = 50
"""Remarks and beats that a decision outlasts before it gives up."""
_REFUSED: Final = "decision refused,"
_REQUEST: Final = """
SELECT max(version) AS version FROM ledger.event
WHERE project_id = $1 AND run_id = $2 AND type = 'approval.requested' AND version <= $3
"""
_KEY: Final = "SELECT FROM ledger.command WHERE project_id = $1 AND key = $2"


async def decide(
    project: Project,
    transitions: Transitions,
    request: Request,
    to_state: State,
    *,
    actor: str,
    reason: str | None,
    meaning: str | None = None,
    output: Any = None,
    key: str | None = None,
) -> Run:
    """Decide on the request by a transition; see `Ledger.approve` and `Ledger.reject`."""
    if not isinstance(request, Run | ApprovalRequested):
        raise InvalidValue(
            "request", request, "must be the run as you read it, or its ApprovalRequested event"
        )
    run_id = request.run_id

    def command(version: int | None) -> Transition:
        return Transition(
            run_id,
            to_state,
            reason=reason,
            meaning=meaning,
            output=output,
            expected_version=version,
            key=key,
        )

    command(None).row(project.limit_bytes)  # bad input is refused before anything is read
    if key is not None and await fetch(project.pool, _KEY, project.project_id, key):
        return await transitions.transition(command(None), actor=actor)  # its first outcome
    for attempt in range(1, TRIES + 1):
        run = await get(project.pool, project.project_id, run_id)
        try:
            await _require_pending(project, run, request, to_state)
            return await transitions.transition(command(run.version), actor=actor)
        except VersionConflict as error:  # a remark or a beat came between
            if attempt == TRIES:
                raise
            refused: LedgerError = error
        except (IllegalTransition, DecisionRefused) as error:
            refused = error
            break
    await _note(project, run_id, to_state, refused, actor=actor, reason=reason)
    raise refused


async def _require_pending(project: Project, run: Run, request: Request, to_state: State) -> None:
    """Raise IllegalTransition unless the run still waits for a decision on this request."""
    if run.state != State.WAITING_APPROVAL:
        raise IllegalTransition(run.run_id, run.state, to_state, "it waits for no approval")
    pending = await _newest_request(project, run)
    if pending != await _version(project, request):
        detail = f"the decision is for another request; it waits for request {pending}"
        raise IllegalTransition(run.run_id, run.state, to_state, detail)


async def _version(project: Project, request: Request) -> int | None:
    """Return the version of the event that asked; None for a run that waited for no approval."""
    if isinstance(request, ApprovalRequested):
        return request.version
    if request.state != State.WAITING_APPROVAL:
        return None
    return await _newest_request(project, request)


async def _newest_request(project: Project, run: Run) -> int | None:
    [row] = await fetch(project.pool, _REQUEST, project.project_id, run.run_id, run.version)
    version: int | None = row["version"]
    return version


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
    """Return the content of an approval's request, with the digest of what is shown.

    Raises InvalidValue for what is no JSON: it has no digest.
    """
    if isinstance(show, BaseModel):
        show = show.model_dump(mode="json")
    encode_payload({"prompt": prompt, "show": show}, sys.maxsize)
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
    events = await history(project.pool, project.project_id, run_id, heartbeats=False)
    note = refused_decision(events, to_state, refused, reason)
    if note is not None:
        await append(project, run_id, note, actor=actor)


def refused_decision(
    events: Sequence[Event], to_state: State, error: Exception, reason: str | None
) -> NoteAdded | None:
    """Return the note of a refused decision; None where no approval was ever asked for.

    None also after `MAX_NOTES` notes in a run.
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
