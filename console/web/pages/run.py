"""The page of a run: its timeline, its events, its state at any version, and its costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from fastapi import Query
from fastapi.responses import RedirectResponse, Response

from runfold.console.shared.approval_requests import pending_request
from runfold.console.shared.plain import jsonable
from runfold.console.web.pages.attempts import attempts
from runfold.console.web.pages.relations import DEEPEST, relations, tree
from runfold.console.web.pages.relations import MOST as RELATIVES
from runfold.console.web.pages.timeline import Fact, timeline
from runfold.console.web.pages.viewing import ReadViewer, Viewer, page, router
from runfold.ledger.events import Event
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.run import Run

WINDOW: Final = 200
"""Events in the table of one page."""
MOST: Final = 20_000
"""Events that a timeline draws."""
_FACTS: Final = (
    f"SELECT {', '.join(each.name for each in fields(Fact))} FROM ledger.event"
    " WHERE project_id = $1 AND run_id = $2 AND version > $3 ORDER BY version LIMIT $4"
)
_ENVELOPE: Final = frozenset(Event.model_fields) - {"name"}
From = Annotated[int, Query(alias="from", ge=0, le=2_147_483_647)]
Version = Annotated[int | None, Query(ge=1, le=2_147_483_647)]

pages = router()


@page(pages, "/p/{project}/runs/{run_id}")
async def run(
    viewer: ReadViewer,
    run_id: str,
    *,
    after: From = 0,
    beats: bool = False,
    attempt: Version = None,
) -> Response:
    """Show a run: the timeline first, then a window of its events."""
    ledger = viewer.ledger
    run = await ledger.get(run_id)
    facts = await _facts(viewer, run)
    events = await ledger.history(run_id, after=after, heartbeats=beats, limit=WINDOW + 1)
    more = events[WINDOW - 1].version if len(events) > WINDOW else None
    events = events[:WINDOW]
    pending = await pending_request(ledger, run.run_id)
    now = datetime.now(UTC)
    return viewer.page(
        "run.html",
        {
            "run": run,
            "attempts": attempts(facts, now),
            "relations": await relations(ledger, run),
            "events": [event_row(event) for event in events],
            "after": after,
            "more": more,
            "beats": beats,
        },
        timeline=timeline(facts, now, attempt) if facts else None,
        attempt=attempt,
        cut=run.version - len(facts),
        pending=pending,
        cancellable=not run.is_terminal,
        window=WINDOW,
    )


async def _facts(viewer: Viewer, run: Run) -> Sequence[Fact]:
    """Return the newest events of a run, without their content."""
    ledger = viewer.ledger
    after = max(run.version - MOST, 0)
    rows = await fetch(ledger.pool, _FACTS, ledger.project_id, run.run_id, after, MOST)
    if rows:
        return [Fact(*row.values()) for row in rows]  # by place: by name takes twice as long
    names = [each.name for each in fields(Fact)]
    archived = await ledger.history(run.run_id, after=after)
    return [
        Fact(**{n: getattr(event, n) for n in names if hasattr(event, n)}) for event in archived
    ]


def event_row(event: Event) -> Mapping[str, Any]:
    """Return an event as a table shows it: the envelope, its other facts, and its content."""
    content = event.content()
    known = event.model_dump(exclude_none=True)
    facts = {n: v for n, v in known.items() if n not in _ENVELOPE and n not in content}
    return {
        "version": event.version,
        "recorded_at": event.recorded_at,
        "type": event.type,
        "actor": event.actor,
        "credential": event.credential,
        "state": event.state,
        "facts": facts,
        "content": content,
        "erased": event.erased,
        "hash": event.hash,
    }


@page(pages, "/p/{project}/runs/{run_id}/tree")
async def family(viewer: ReadViewer, run_id: str) -> Response:
    """Show a run with its children, and theirs."""
    now = await viewer.ledger.get(run_id)
    data = {"tree": await tree(viewer.ledger, now)}
    return viewer.page("tree.html", data, run=now, deepest=DEEPEST, most=RELATIVES)


@page(pages, "/p/{project}/runs/{run_id}/raw")
async def raw(viewer: ReadViewer, run_id: str, *, after: From = 0) -> Response:
    """Show a run and a window of its events as the ledger has them, as JSON."""
    now = await viewer.ledger.get(run_id)
    events = await viewer.ledger.history(run_id, after=after, limit=WINDOW)
    more = (
        events[-1].version if len(events) == WINDOW and events[-1].version < now.version else None
    )
    shown = [jsonable(event.model_dump(exclude_none=True)) for event in events]
    data = {"run": now, "events": shown, "after": after, "more": more}
    return viewer.page("raw.html", data, window=WINDOW)


@page(pages, "/p/{project}/runs/{run_id}/state")
async def state(
    viewer: ReadViewer, run_id: str, at: Version = None, vs: Version = None
) -> Response:
    """Show a run as it was after an event, and what differs from after another one."""
    ledger = viewer.ledger
    now = await ledger.get(run_id)
    version = min(at or now.version, now.version)
    then = await ledger.state_at(run_id, version)
    other = None if vs is None else await ledger.state_at(run_id, min(vs, now.version))
    names = [each.name for each in fields(Run)]
    rows = [
        {
            "name": name,
            "value": getattr(then, name),
            "before": None if other is None else getattr(other, name),
            "changed": other is not None and getattr(then, name) != getattr(other, name),
        }
        for name in names
    ]
    return viewer.page(
        "state.html",
        {"at": version, "vs": vs, "newest": now.version, "state": then, "other": other},
        rows_of_state=rows,
        run=now,
        steps=_steps(version, now.version),
    )


def _steps(at: int, newest: int) -> list[int]:
    """Return versions to go to: evenly over the history, and those beside this one."""
    even = {max(1, round(newest * n / 20)) for n in range(21)}
    return sorted(even | {max(at - 1, 1), at, min(at + 1, newest)})


@page(pages, "/p/{project}/runs/{run_id}/events/{version}")
async def event(viewer: ReadViewer, run_id: str, version: int) -> Response:
    """Show one event in full, and what it changed."""
    ledger = viewer.ledger
    now = await ledger.get(run_id)
    events = await ledger.history(run_id, after=max(version - 1, 0), limit=1)
    if not events or events[0].version != version:
        return RedirectResponse(f"{viewer.base}/runs/{now.run_id}", 303)
    changes = {}
    if version > 1:
        changes = (await ledger.diff(run_id, version - 1, version)).changes
    shown = event_row(events[0])
    return viewer.page(
        "event.html",
        {"event": shown, "changes": changes, "position": events[0].position},
        run=now,
        payload_hash=events[0].payload_hash,
    )
