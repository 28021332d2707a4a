"""The past of a run: its events, its state at any of them, and what changed between two."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Query, Response

from runfold.console.shared.plain import jsonable
from runfold.console.shared.values import version_or_instant
from runfold.console.web.api.shapes import RunId, Shown, opened, shown_event
from runfold.console.web.callers import Reader

router = APIRouter(tags=["past"])
MAX_EVENTS: Final = 1_000
Point = Annotated[str, Query(description="A version such as 3, or a time with its zone.")]


@router.get("/runs/{run_id}/history", operation_id="history")
async def history(
    ledger: Reader,
    run_id: RunId,
    *,
    after: Annotated[int, Query(ge=0, le=2**31 - 1, description="A version.")] = 0,
    heartbeats: bool = True,
    limit: Annotated[int, Query(ge=1, le=MAX_EVENTS)] = 200,
) -> Shown:
    """Read a run's events in the order of their versions. Needs the right read.

    `next` is the `after` of the next page; null at the end.
    """
    events = await ledger.history(run_id, after=after, heartbeats=heartbeats, limit=limit + 1)
    page = events[:limit]
    more = len(events) > limit
    return {
        "events": [shown_event(event) for event in page],
        "next": page[-1].version if more else None,
    }


@router.get("/runs/{run_id}/state", operation_id="state_at")
async def state_at(ledger: Reader, run_id: RunId, at: Point, response: Response) -> Shown:
    """Read a run as it was after an event or at a time. Needs the right read."""
    return opened(await ledger.state_at(run_id, version_or_instant(at, "at")), response)


@router.get("/runs/{run_id}/diff", operation_id="diff")
async def diff(ledger: Reader, run_id: RunId, start: Point, end: Point = "") -> Shown:
    """Read what changed between two points, and by which events; `end` empty is now.

    Needs the right read.
    """
    until = version_or_instant(end, "end") if end else None
    difference = await ledger.diff(run_id, version_or_instant(start, "start"), until)
    return {
        "from": difference.before.version,
        "to": difference.after.version,
        "changes": {
            name: {"before": jsonable(old), "after": jsonable(new)}
            for name, (old, new) in difference.changes.items()
        },
        "events": [shown_event(event) for event in difference.events[:MAX_EVENTS]],
    }
