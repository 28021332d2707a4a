"""The page of runs: a query in the URL, and pages of it both ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Depends, Form, Query
from fastapi.responses import RedirectResponse, Response

from runfold.console.web.pages.viewing import ReadViewer, Viewer, page, router, viewing
from runfold.ledger.errors import InvalidQuery
from runfold.ledger.lifecycle import State
from runfold.ledger.reading.search import Page
from runfold.ledger.run import Run

Canceller = Annotated[Viewer, Depends(viewing("decide", "work", "submit"))]
Size = Annotated[int, Query(ge=1, le=1_000)]
pages = router()


@page(pages, "/p/{project}/runs", csv=True)
async def runs(
    viewer: ReadViewer,
    q: str = "",
    before: str | None = None,
    after: str | None = None,
    limit: Size = 50,
) -> Response:
    """List the runs that fit a query, the newest first."""
    problem, status = None, HTTPStatus.OK
    try:
        found = await viewer.ledger.search(q, before=before, after=after, limit=limit)
    except InvalidQuery as error:
        if viewer.request.url.path.endswith((".json", ".csv")):
            raise
        found, problem, status = Page([], None, None), str(error), HTTPStatus.UNPROCESSABLE_ENTITY
    return viewer.page(
        "runs.html",
        {"query": q, "runs": found.runs, "older": found.older, "newer": found.newer},
        rows=[_row(run) for run in found.runs],
        status=status,
        problem=problem,
        examined=found.examined,
        links=_links(q, found, limit),
        states=_facets(q),
        now=datetime.now(UTC),
    )


@pages.post("/p/{project}/runs/{run_id}/cancel")
async def cancel(viewer: Canceller, run_id: str, reason: Annotated[str, Form()] = "") -> Response:
    """Cancel a run, on record."""
    run = await viewer.ledger.cancel(run_id, reason=reason or None)
    return RedirectResponse(f"{viewer.base}/runs/{run.run_id}", HTTPStatus.SEE_OTHER)


def _links(q: str, found: Page, limit: int) -> Mapping[str, str | None]:
    """Return the addresses of the pages beside this one and of its other forms."""

    def link(**cursor: Any) -> str:
        size = {} if limit == 50 else {"limit": limit}  # noqa: PLR2004  the default
        return urlencode({k: v for k, v in ({"q": q} | cursor | size).items() if v})

    return {
        "older": link(before=found.older) if found.older else None,
        "newer": link(after=found.newer) if found.newer else None,
        "first": link(),
    }


def _facets(q: str) -> Sequence[tuple[str, str, bool]]:
    """Return a link for each state: the query with that state and no other."""
    rest = " ".join(word for word in q.split() if not word.startswith(("state:", "-state:")))
    chosen = {word.removeprefix("state:") for word in q.split() if word.startswith("state:")}
    found = []
    for state in State:
        on = state.value in chosen
        query = rest if on else f"state:{state.value} {rest}".strip()
        found.append((state.value, urlencode({"q": query}), on))
    return found


def _row(run: Run) -> Mapping[str, Any]:
    names = (
        "run_id", "kind", "state", "attempt_count", "max_attempts", "worker_id", "cost_usd",
        "error_code", "key", "tags", "created_at", "updated_at", "completed_at",
    )  # fmt: skip
    return {name: " ".join(run.tags) if name == "tags" else getattr(run, name) for name in names}
