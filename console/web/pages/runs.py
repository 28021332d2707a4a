"""The runs that fit the query in the URL, page by page in both directions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import Depends, Form, Query
from fastapi.responses import RedirectResponse, Response

from runfold.console.web.pages.counts import counted, facets
from runfold.console.web.pages.viewing import ReadViewer, Viewer, page, router, viewing
from runfold.ledger import views
from runfold.ledger.errors import InvalidQuery
from runfold.ledger.reading.search import Page
from runfold.ledger.run import Run

Canceller = Annotated[Viewer, Depends(viewing("submit"))]
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
        listed = await viewer.ledger.search(
            q, before=before, after=after, limit=limit, content=False
        )
    except InvalidQuery as error:
        if viewer.request.url.path.endswith((".json", ".csv")):
            raise
        listed, problem, status = Page(), str(error), HTTPStatus.UNPROCESSABLE_ENTITY
    return viewer.page(
        "runs.html",
        {"query": q, "runs": listed, "older": listed.older, "newer": listed.newer},
        rows=[_row(run) for run in listed],
        status=status,
        problem=problem,
        examined=listed.examined,
        links=_links(q, listed, limit, before=before, after=after),
        facets=facets(q, await counted(viewer.ledger)),
        views=await views.views(viewer.ledger.project),
        now=datetime.now(UTC),
    )


@pages.post("/p/{project}/views")
async def change_view(
    viewer: ReadViewer,
    name: Annotated[str, Form()],
    change: Annotated[Literal["save", "remove"], Form()] = "save",
    q: Annotated[str, Form()] = "",
) -> Response:
    """Save the query under a name for all who read the project, or remove the view."""
    if change == "save":
        await views.save(viewer.ledger.project, name, q)
    else:
        await views.drop(viewer.ledger.project, name)
    query = f"?{urlencode({'q': q})}" if q else ""
    return RedirectResponse(f"{viewer.base}/runs{query}", HTTPStatus.SEE_OTHER)


@pages.post("/p/{project}/runs/{run_id}/cancel")
async def cancel(viewer: Canceller, run_id: str, reason: Annotated[str, Form()] = "") -> Response:
    """Cancel a run, on record."""
    run = await viewer.ledger.cancel(run_id, reason=reason or None)
    return RedirectResponse(f"{viewer.base}/runs/{run.run_id}", HTTPStatus.SEE_OTHER)


def _links(q: str, listed: Page, limit: int, **cursors: str | None) -> Mapping[str, str | None]:
    """Return the query strings of this page, of those beside it, and of the first."""

    def link(**cursor: Any) -> str:
        size = {} if limit == 50 else {"limit": limit}  # noqa: PLR2004  the default
        return urlencode({k: v for k, v in ({"q": q} | cursor | size).items() if v})

    return {
        "older": link(before=listed.older) if listed.older else None,
        "newer": link(after=listed.newer) if listed.newer else None,
        "first": link(),
        "this": link(**cursors),
    }


def _row(run: Run) -> Mapping[str, Any]:
    names = (
        "run_id", "kind", "state", "attempt_count", "max_attempts", "worker_id", "cost_usd",
        "error_code", "key", "tags", "created_at", "updated_at", "completed_at",
    )  # fmt: skip
    return {name: " ".join(run.tags) if name == "tags" else getattr(run, name) for name in names}
