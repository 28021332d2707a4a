"""What a worker writes about a run that it holds: steps, waits, and ends; always with its lease."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal

from fastapi import APIRouter, Response, status
from pydantic import BaseModel, Field

from runfold.console.shared.plain import jsonable
from runfold.console.web.api.shapes import (
    Cost,
    IfMatch,
    Key,
    RunId,
    Shown,
    UnderLease,
    shown,
    version_of,
)
from runfold.console.web.callers import Worker
from runfold.ledger.errors import InvalidValue
from runfold.ledger.events import StepCompleted, StepFailed

router = APIRouter(tags=["work"])


class Spent(UnderLease):
    """What the last piece of work cost."""

    cost_usd_delta: Cost = Decimal(0)
    step_count_delta: int = 0


class Completion(Spent):
    """A run's output, or the digest of one that is kept elsewhere."""

    output: Any = None
    output_sha256: str | None = Field(None, description="64 hex digits.")


class Failure(Spent):
    """The error with which a run fails."""

    error_code: str
    error_detail: Any = None


class GivenBack(UnderLease):
    """Why a run is given back, and how many seconds pass before it can be claimed."""

    delay: float = 0
    error_code: str | None = None
    error_detail: Any = None


class Step(Spent):
    """A step's result, or its error."""

    name: str
    type: Literal["step.completed", "step.failed"] = "step.completed"
    output: Any = None
    error_code: str | None = None
    error_detail: Any = None


class Tool(UnderLease):
    """A tool that the run waits for."""

    name: str
    input: Any = None
    park: bool = Field(default=False, description="Give up the lease while the run waits.")
    wait: float | None = Field(None, description="Seconds that a parked wait may last.")


class ToolAnswer(Spent):
    """The answer to a tool whose wait is held."""

    output: Any = None
    error_code: str | None = None
    error_detail: Any = None


class Approval(UnderLease):
    """What a person, or several, must decide."""

    prompt: str
    show: Any = None
    name: str = "approval"
    role: str | None = None
    other_person: bool = False
    approvals: int = Field(1, description="How many persons must approve.")
    park: bool = True
    wait: float | None = Field(None, description="Seconds that the request may stay undecided.")
    wait_outcome: Literal["cancelled", "timeout", "lapsed"] = "cancelled"


def _rest(body: BaseModel) -> dict[str, Any]:
    return body.model_dump(exclude={"token", "worker_id"})


@router.post("/runs/{run_id}/complete", operation_id="complete")
async def complete(
    ledger: Worker, run_id: RunId, body: Completion, response: Response, key: Key = None
) -> Shown:
    """End the run as completed. Needs work, and the lease."""
    return shown(await ledger.complete(body.lease(run_id), **_rest(body), key=key), response)


@router.post("/runs/{run_id}/fail", operation_id="fail")
async def fail(
    ledger: Worker, run_id: RunId, body: Failure, response: Response, key: Key = None
) -> Shown:
    """End the run as failed; `retry` allows another attempt. Needs work, and the lease."""
    return shown(await ledger.fail(body.lease(run_id), **_rest(body), key=key), response)


@router.post("/runs/{run_id}/retry", operation_id="retry")
async def retry(ledger: Worker, run_id: RunId, body: GivenBack, response: Response) -> Shown:
    """Record that the attempt failed, and allow another one. Needs work, and the lease."""
    return shown(await ledger.retry(body.lease(run_id), **_rest(body)), response)


@router.post("/runs/{run_id}/release", operation_id="release")
async def release(ledger: Worker, run_id: RunId, body: GivenBack, response: Response) -> Shown:
    """Give the run back unharmed; the attempt is not charged. Needs work, and the lease."""
    return shown(await ledger.release(body.lease(run_id), **_rest(body)), response)


@router.post(
    "/runs/{run_id}/steps",
    operation_id="step",
    status_code=status.HTTP_201_CREATED,
)
async def step(
    ledger: Worker, run_id: RunId, body: Step, *, if_match: IfMatch = None, key: Key = None
) -> Shown:
    """Record a step's result or its error; with a key once. Needs work, and the lease."""
    spent: dict[str, Any] = {
        "name": body.name,
        "cost_usd": body.cost_usd_delta or None,
        "step_count": body.step_count_delta or None,
    }
    event: StepCompleted | StepFailed
    foreign = ("output",) if body.type == "step.failed" else ("error_code", "error_detail")
    for name in foreign:
        if getattr(body, name) is not None:
            other = "step.completed" if body.type == "step.failed" else "step.failed"
            raise InvalidValue("type", body.type, f"has no {name}: it is of type {other}")
    if body.type == "step.completed":
        event = StepCompleted(**spent, output=body.output)
    else:
        event = StepFailed(**spent, error_code=body.error_code, error_detail=body.error_detail)
    receipt = await ledger.append(
        body.lease(run_id), event, expected_version=version_of(if_match), key=key
    )
    return dict(jsonable(receipt))


@router.post("/runs/{run_id}/ask-tool", operation_id="ask_tool")
async def ask_tool(
    ledger: Worker, run_id: RunId, body: Tool, response: Response, key: Key = None
) -> Shown:
    """Ask for a tool's answer: the run waits with its lease, or is parked without one.

    Needs work, and the lease.
    """
    return shown(await ledger.ask_tool(body.lease(run_id), **_rest(body), key=key), response)


@router.post("/runs/{run_id}/answer-tool", operation_id="answer_tool")
async def answer_tool(
    ledger: Worker, run_id: RunId, body: ToolAnswer, response: Response, key: Key = None
) -> Shown:
    """Answer the tool that the run waits for while its worker holds it.

    Needs work, and the lease.
    """
    return shown(await ledger.answer(body.lease(run_id), **_rest(body), key=key), response)


@router.post("/runs/{run_id}/ask-approval", operation_id="ask_approval")
async def ask_approval(
    ledger: Worker, run_id: RunId, body: Approval, response: Response, key: Key = None
) -> Shown:
    """Make the run wait for a person's decision. Needs work, and the lease."""
    return shown(await ledger.ask_approval(body.lease(run_id), **_rest(body), key=key), response)
