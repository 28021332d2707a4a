"""Runs: submit one, list them, read one."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response, status
from pydantic import AwareDatetime, BaseModel, Field

from runfold.console.cli.kit.plain import jsonable
from runfold.console.web.callers import Caller, Reader
from runfold.ledger.run import Run

router = APIRouter(tags=["runs"])
MAX_PAGE = 200


class Submission(BaseModel):
    """What is asked of a run; the members are those of `Ledger.submit`."""

    kind: str
    input: Any = None
    priority: int = 0
    delay: float | None = Field(None, description="Seconds before it can be claimed.")
    max_attempts: int = 3
    deadline: AwareDatetime | float | None = Field(None, description="An instant, or seconds.")
    tags: list[str] = []
    parent: str | None = Field(None, description="The run that asks for this one.")
    actor: str | None = Field(None, description="Who asks; else the token itself.")


Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="The same key and content give the first outcome again.",
    ),
]


@router.post("/runs", operation_id="submit", status_code=status.HTTP_201_CREATED)
async def submit(
    ledger: Caller, asked: Submission, response: Response, key: Key = None
) -> dict[str, Any]:
    """Ask for a run; it exists when the answer has come. Needs the right submit."""
    run = await ledger.submit(**asked.model_dump(), key=key)
    response.headers["Location"] = f"/v1/runs/{run.run_id}"
    return shown(run, response)


@router.get("/runs", operation_id="runs")
async def runs(
    ledger: Reader,
    *,
    state: Annotated[list[str] | None, Query()] = None,
    kind: str | None = None,
    worker_id: str | None = None,
    tag: str | None = None,
    key: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
) -> dict[str, Any]:
    """List runs, the newest first. Needs the right read."""
    found = await ledger.runs(
        state=state, kind=kind, worker_id=worker_id, tag=tag, key=key, limit=limit
    )
    return {"runs": [jsonable(run) for run in found]}


@router.get("/runs/{run_id}", operation_id="run")
async def run(ledger: Reader, run_id: str, response: Response) -> dict[str, Any]:
    """Read a run as it is now. Needs the right read."""
    return shown(await ledger.get(run_id), response)


def shown(run: Run, response: Response) -> dict[str, Any]:
    """Return a run as JSON; its version is the ETag."""
    response.headers["ETag"] = f'"{run.version}"'
    return dict(jsonable(run))
