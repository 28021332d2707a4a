"""Runs: submit, list, read, cancel and rerun them, and send one a signal, an answer or a note."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Annotated, Any, Final

from fastapi import APIRouter, HTTPException, Query, Request, Response, status
from pydantic import Field, ValidationError

from runfold.console.shared.json_lists import without_content
from runfold.console.shared.plain import jsonable
from runfold.console.shared.rerun import rerun as rerun_runs
from runfold.console.web.api.shapes import (
    MAX_WAIT,
    Body,
    Cost,
    Deadline,
    IfMatch,
    Key,
    RunId,
    Shown,
    opened,
    shown,
    version_of,
)
from runfold.console.web.callers import Reader, Submitter
from runfold.console.web.wakeups import hung_up, until_first
from runfold.ledger.errors import InvalidValue
from runfold.ledger.events import NoteAdded
from runfold.ledger.validation import check_int

router = APIRouter(tags=["runs"])
Wait = Annotated[float, Query(ge=0, le=MAX_WAIT, description="Seconds to wait for the run to end.")]
MAX_RUNS = 200
MAX_BATCH = 1_000
LINES: Final = "application/x-ndjson"


class Submission(Body):
    """A submit; the members are those of `Ledger.submit`."""

    kind: str
    input: Any = None
    priority: int = 0
    delay: float | None = Field(None, description="Seconds before it can be claimed.")
    max_attempts: int = 3
    deadline: Deadline = Field(None, description="An instant, or seconds.")
    tags: list[str] = Field(default_factory=list)
    parent: str | None = Field(None, description="The run that asks for this one.")


class Item(Submission):
    """One run of a batch, with its own idempotency key."""

    actor: None = Field(None, exclude=True, description="Of the batch.")
    key: str | None = Field(None, description="The same key and content give the same run again.")


class Batch(Body):
    """Runs that are submitted together."""

    runs: list[Item] = Field(min_length=1, max_length=MAX_BATCH)


class Reason(Body):
    """Who acts, and why."""

    reason: str | None = None


class Signal(Body):
    """A value for a run under a name."""

    name: str
    value: Any = None


class Answer(Body):
    """The answer to a tool that a parked run waits for: an output, or an error."""

    output: Any = None
    error_code: str | None = None
    error_detail: Any = None
    cost_usd_delta: Cost = Decimal(0)


class Note(Body):
    """A remark in a run's history; `name` is its sort, for counting."""

    text: str
    name: str | None = None


@router.post("/runs", operation_id="submit", status_code=status.HTTP_201_CREATED)
async def submit(ledger: Submitter, body: Submission, response: Response, key: Key = None) -> Shown:
    """Submit a run; it exists once the answer has come. Needs the right submit."""
    run = await ledger.submit(**body.model_dump(), key=key)
    response.headers["Location"] = f"/v1/runs/{run.run_id}"
    return shown(run, response)


@router.post("/runs/batch", operation_id="submit_many", status_code=status.HTTP_201_CREATED)
async def submit_many(ledger: Submitter, body: Batch) -> Shown:
    """Submit up to 1,000 runs in one transaction, all or none. Needs the right submit.

    The answers are in the order of the runs; `created` is false if the key named that run before.
    """
    submits = [item.model_dump() for item in body.runs]
    return {"runs": jsonable(await ledger.submit_many(submits, actor=body.actor))}


@router.post(
    "/runs/lines",
    operation_id="submit_lines",
    status_code=status.HTTP_201_CREATED,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                LINES: {"schema": {"type": "string", "description": "A run a line, as in `batch`."}}
            },
        }
    },
)
async def submit_lines(ledger: Submitter, request: Request) -> Shown:
    """Submit up to 1,000 runs, each a line of JSON, all or none. Needs the right submit.

    The answer is that of `batch`. A line that is no run is named by its number.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != LINES:
        raise HTTPException(status.HTTP_415_UNSUPPORTED_MEDIA_TYPE, f"send the runs as {LINES}")
    numbered = enumerate((await request.body()).split(b"\n"), 1)
    lines = [(number, line) for number, line in numbered if line.strip()]
    check_int("lines", len(lines), least=1, most=MAX_BATCH)
    submits = [_item(number, line).model_dump() for number, line in lines]
    return {"runs": jsonable(await ledger.submit_many(submits))}


def _item(number: int, line: bytes) -> Item:
    try:
        return Item.model_validate_json(line)
    except ValidationError as error:
        [first, *_] = error.errors()
        at = [str(part) for part in first["loc"]]
        text = line[:100].decode(errors="replace")
        raise InvalidValue(f"line {number}", text, ": ".join([*at, first["msg"]])) from error


@router.get("/runs", operation_id="runs")
async def runs(
    request: Request,
    response: Response,
    ledger: Reader,
    *,
    q: Annotated[str, Query(description="Such as `state:failed,timeout kind:review`.")] = "",
    before: Annotated[str | None, Query(description="The `older` of a page.")] = None,
    after: Annotated[str | None, Query(description="The `newer` of a page.")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_RUNS)] = 50,
) -> Shown:
    """List runs that fit a query, the newest first, without their content. Needs the right read.

    `older` and `newer` name the pages beside, as do the links `next` and `prev`; null at an end.
    """
    page = await ledger.search(q, before=before, after=after, limit=limit, content=False)
    url = request.url.remove_query_params(["before", "after"])
    beside = (("next", "before", page.older), ("prev", "after", page.newer))
    links = [
        f'<{(to := url.include_query_params(**{name: run_id})).path}?{to.query}>; rel="{rel}"'
        for rel, name, run_id in beside
        if run_id is not None
    ]
    if links:
        response.headers["Link"] = ", ".join(links)
    beyond = {"older": page.older, "newer": page.newer, "examined": page.examined}
    return dict(without_content({"runs": page, **beyond}))


@router.get("/runs/{run_id}", operation_id="run")
async def run(
    request: Request, ledger: Reader, run_id: RunId, response: Response, wait: Wait = 0
) -> Shown:
    """Read a run as it is now; its version is the ETag. Needs the right read.

    With `wait`, once it has ended, or as it is when the time is over.
    """
    if wait > 0:
        ending: asyncio.Event = request.app.state.ending
        await until_first(ledger.wait(run_id), ending.wait(), hung_up(request), seconds=wait)
    return opened(await ledger.get(run_id), response)


@router.post("/runs/{run_id}/cancel", operation_id="cancel")
async def cancel(ledger: Submitter, run_id: RunId, body: Reason, response: Response) -> Shown:
    """Cancel a run; the worker that holds it is told with the next heartbeat. Needs submit."""
    return shown(await ledger.cancel(run_id, **body.model_dump()), response)


@router.post("/runs/{run_id}/rerun", operation_id="rerun", status_code=status.HTTP_201_CREATED)
async def rerun(run_id: RunId, body: Reason, ledger: Submitter, reader: Reader) -> Shown:
    """Run an ended run again as a new run that is linked to it. Needs submit and read."""
    old = await reader.get(run_id)
    actor = ledger.project.actor_or_default(body.actor)
    [done] = await rerun_runs(ledger, [old], actor=actor, reason=body.reason)
    return dict(jsonable(done))


@router.post("/runs/{run_id}/signals", operation_id="signal")
async def signal(
    ledger: Submitter, run_id: RunId, body: Signal, response: Response, key: Key = None
) -> Shown:
    """Send a run a value; it is kept until the run asks for it. Needs the right submit."""
    sent = await ledger.signal(run_id, body.name, body.value, actor=body.actor, key=key)
    return shown(sent, response)


@router.post("/runs/{run_id}/answer", operation_id="answer")
async def answer(
    ledger: Submitter,
    run_id: RunId,
    body: Answer,
    response: Response,
    *,
    if_match: IfMatch = None,
    key: Key = None,
) -> Shown:
    """Answer the tool that a parked run waits for. Needs the right submit."""
    run = await ledger.answer(
        run_id, **body.model_dump(), expected_version=version_of(if_match), key=key
    )
    return shown(run, response)


@router.post("/runs/{run_id}/notes", operation_id="note", status_code=status.HTTP_201_CREATED)
async def note(
    ledger: Submitter, run_id: RunId, body: Note, *, if_match: IfMatch = None, key: Key = None
) -> Shown:
    """Add a remark to a run's history. Needs the right submit."""
    receipt = await ledger.append(
        run_id,
        NoteAdded(name=body.name, text=body.text),
        actor=body.actor,
        expected_version=version_of(if_match),
        key=key,
    )
    return dict(jsonable(receipt))
