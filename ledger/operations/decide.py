"""Decide: grant or reject the approval that a run waits for; a refused decision is noted.

The statement is `ledger/sql/operations/decide.sql`.
"""

from __future__ import annotations

import json
import sys
from hashlib import sha256
from typing import Any, Final, Literal, NamedTuple, TypeAlias
from uuid import UUID

from pydantic import BaseModel

from runfold.ledger import names
from runfold.ledger.arguments import check_approvals
from runfold.ledger.errors import (
    DecisionRefused,
    IllegalTransition,
    InvalidValue,
    LedgerError,
    RunNotFound,
)
from runfold.ledger.events import ApprovalRequested
from runfold.ledger.lifecycle import State
from runfold.ledger.operations.keys import CommandRow, first_outcomes, run_after, unless_raced
from runfold.ledger.operations.project import Project
from runfold.ledger.payload import PayloadRules, encode_payload
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.redaction import Redaction
from runfold.ledger.run import Run
from runfold.ledger.validation import MAX_INT, check_actor, check_int, check_reason, check_text

PendingRequest: TypeAlias = Run | ApprovalRequested
"""The request that is decided: its event, or the run as it was read while it waited."""
Answer: TypeAlias = Literal["approval.granted", "approval.rejected"]

MAX_MEANING: Final = 80
# The run is read in the statement that decides: one round trip.
DECIDE: Final = (
    "SELECT run.*, decided.from_state, decided.refused, decided.detail"
    " FROM ledger.decide($1, $2, $3, $4, $5, $6, $7, $8, $9) AS decided"
    " CROSS JOIN LATERAL ledger.read_run($1, decided.run_id) AS run"
)
_REQUEST: Final = """
SELECT max(version) AS version FROM ledger.event
WHERE project_id = $1 AND run_id = $2 AND type = 'approval.requested' AND version <= $3
"""
_STATES: Final[dict[Answer, State]] = {
    "approval.granted": State.RUNNING,
    "approval.rejected": State.CANCELLED,
}
_PERSONS: Final = frozenset({"asker", "submitter", "unread", "role", "twice"})


class DecideRow(NamedTuple):
    """The parameters of `ledger.decide` after the project."""

    actor: str
    run_id: UUID
    type: Answer
    request: int
    shown_sha256: str | None
    meaning: str | None
    body: str | None
    key: str | None


async def decide(
    project: Project,
    request: PendingRequest,
    answer: Answer,
    *,
    actor: str,
    reason: str | None,
    meaning: str | None = None,
    output: Any = None,
    key: str | None = None,
) -> Run:
    """Decide on the request; see `Ledger.approve` and `Ledger.reject`."""
    if not isinstance(request, Run | ApprovalRequested):
        raise InvalidValue(
            "request", request, "must be the run as you read it, or its ApprovalRequested event"
        )
    content = {"reason": check_reason(reason), "output": output}
    row = DecideRow(
        actor=check_actor(actor),
        run_id=request.run_id,
        type=answer,
        request=0,
        shown_sha256=request.shown_sha256 if isinstance(request, ApprovalRequested) else None,
        meaning=None if meaning is None else check_text("meaning", meaning, limit=MAX_MEANING),
        body=encode_payload(content, project.rules),
        key=None if key is None else check_text("key", key),
    )
    row = row._replace(request=await _version(project, request))
    rows = await unless_raced(lambda: fetch(project.pool, DECIDE, project.project_id, *row), key)
    if not rows:
        raise RunNotFound(row.run_id, project.project_id)
    if rows[0]["refused"] == "key":
        return await _first_run(project, row)
    to_state = _STATES[answer]
    if rows[0]["refused"] is not None:
        raise _refusal(row, to_state, **{name: rows[0][name] for name in _VERDICT})
    run = Run.from_row(rows[0])
    if run.approved == run.approvals:  # nobody else is waited for
        project.log().info(
            names.STATE_TRANSITION,
            run_id=str(run.run_id),
            from_state=rows[0]["from_state"],
            to_state=to_state.value,
            error_code=None,
        )
    if run.available_at is not None:  # it was parked, and has its answer
        project.waker.wake()
    return run


async def _version(project: Project, request: PendingRequest) -> int:
    """Return the version of the event that asked; 0 for a run that waited for no approval."""
    if isinstance(request, ApprovalRequested):
        return check_int("version", request.version, least=1, most=MAX_INT)
    if request.state != State.WAITING_APPROVAL:
        return 0
    [row] = await fetch(project.pool, _REQUEST, project.project_id, request.run_id, request.version)
    return row["version"] or 0


_VERDICT: Final = ("from_state", "refused", "detail")


def _refusal(
    row: DecideRow, to_state: State, *, from_state: str, refused: str, detail: str
) -> LedgerError:
    if refused in _PERSONS:
        return DecisionRefused(row.run_id, row.actor, refused, detail)
    return IllegalTransition(row.run_id, State(from_state), to_state, detail)


async def _first_run(project: Project, row: DecideRow) -> Run:
    """Return the run after the first use of the key. Raises DuplicateKey for another content."""
    assert row.key is not None
    command = CommandRow(
        run_id=row.run_id,
        what=row.type,
        key=row.key,
        name=row.actor,
        error_code=row.meaning,
        body=row.body,
        steps=row.request,
    )
    outcome = (await first_outcomes(project.pool, project.project_id, [command]))[row.key]
    if isinstance(outcome, LedgerError):
        raise outcome
    return await run_after(project.pool, project.project_id, outcome)


def shown_sha256(prompt: str, show: Any) -> str:
    """Return the hex SHA-256 of an approval's prompt and content.

    It is taken of their JSON with sorted keys and no spaces.
    """
    shown = {"prompt": prompt, "show": show}
    return sha256(
        json.dumps(shown, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()
    ).hexdigest()


def request(
    prompt: str,
    show: Any = None,
    *,
    role: str | None = None,
    other_person: bool = False,
    approvals: int = 1,
    redaction: Redaction | None = None,
) -> dict[str, Any]:
    """Return the content of an approval's request, with the digest of what is shown.

    Secrets are redacted before the digest is taken. Raises InvalidValue unless `show` is JSON.
    """
    check_approvals(approvals)
    if isinstance(show, BaseModel):
        show = show.model_dump(mode="json")
    if redaction is not None:
        prompt, show = redaction.value(prompt, "prompt"), redaction.value(show, "show")
    encode_payload({"prompt": prompt, "show": show}, PayloadRules(sys.maxsize, None))
    content = {"prompt": prompt, "show": show, "shown_sha256": shown_sha256(prompt, show)}
    if role is not None:
        content["role"] = role
    if other_person:
        content["other_person"] = True
    if approvals > 1:
        content["approvals"] = approvals
    return content
