"""The viewer of a page, and the answer as HTML or JSON, or of a list as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from http import HTTPStatus
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import quote, urlsplit
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from runfold.console.shared.inbox import count_inbox
from runfold.console.shared.json_lists import without_content
from runfold.console.shared.known_errors import known
from runfold.console.shared.plain import clean, jsonable, safe_json
from runfold.console.web.callers import Callers, named_project
from runfold.console.web.pages.cookies import SESSION, kept
from runfold.console.web.pages.rendering import rendered
from runfold.console.web.problems import Unauthenticated, answer_to, as_known, retry_headers
from runfold.ledger import Ledger, access
from runfold.ledger.access import EVERYWHERE, RIGHTS
from runfold.ledger.errors import LedgerError
from runfold.ledger.run import Run
from runfold.ledger.sessions import SESSION_PREFIX
from runfold.ledger.settings import CALLBACK

ZONE: Final = "runfold_zone"
THEME: Final = "runfold_theme"
THEMES: Final = ("auto", "light", "dark")
_CSP: Final = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; img-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
MOST_WAITING: Final = 99
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Viewer:
    """A person at a page, and the ledger that acts for them."""

    request: Request
    ledger: Ledger
    may: frozenset[str] = frozenset()
    """The viewer's rights in the project, and with `*` before them those in all projects.

    A page shows the forms that these allow; for answers in JSON or CSV they are not looked up.
    """
    waiting: int | None = None
    """Requests that wait for a decision, at most MOST_WAITING; None where no page shows it."""

    @property
    def base(self) -> str:
        """The path under which the project's pages lie."""
        return f"/p/{quote(self.ledger.project_id, safe='')}"

    def page(
        self,
        template: str,
        data: Mapping[str, Any],
        *,
        rows: Sequence[object] | None = None,
        status: HTTPStatus = HTTPStatus.OK,
        **drawn: Any,
    ) -> Response:
        """Return the answer in the form that the path asks for.

        `data` is the page's JSON as well, without the content of the runs in its lists; `rows` are
        its CSV, and `drawn` is for the template alone.
        """
        path = self.request.url.path
        if path.endswith(".json"):
            shown = {
                name: jsonable(value) if isinstance(value, Run) else without_content(value)
                for name, value in data.items()
            }
            return JSONResponse(shown, status)
        if path.endswith(".csv"):
            return _csv(rows or [])
        shared = {
            "base": self.base, "project": self.ledger.project_id, "actor": self.ledger.actor,
            "waiting": self.waiting, "most_waiting": MOST_WAITING, "may": self.may,
        }  # fmt: skip
        return html(self.request, template, {**shared, **data, **drawn}, status)


def viewing(*rights: str, everywhere: bool = False) -> Callable[..., Awaitable[Viewer]]:
    """Return a dependency: the viewer, who must have one of the rights in the path's project.

    With `everywhere`, in all projects.
    """

    async def find(request: Request, project: str) -> Viewer:
        callers: Callers = request.app.state.callers
        secret = kept(request, SESSION)
        if secret is not None and not secret.startswith(SESSION_PREFIX):
            raise Unauthenticated("this is not a session")
        client = request.client.host if request.client else ""
        if everywhere:
            await callers.ledger(secret, project, RIGHTS, client)  # refuses an unknown project
            await callers.ledger(secret, EVERYWHERE, rights, client)
        ledger = await callers.ledger(secret, named_project(project), rights, client)
        await callers.reads.note(request, ledger)
        if request.url.path.endswith((".json", ".csv")):
            return Viewer(request, ledger)
        may = await _may(ledger)
        counts = request.method == "GET" and "read" in may
        waiting = await count_inbox(ledger, ledger.actor, MOST_WAITING) if counts else None
        return Viewer(request, ledger, may, waiting)

    return find


async def _may(ledger: Ledger) -> frozenset[str]:
    held = await access.held(ledger.project)
    return frozenset({*held, *(f"*{right}" for right, everywhere in held.items() if everywhere)})


ReadViewer = Annotated[Viewer, Depends(viewing("read"))]


class PageRoute(APIRoute):
    """A route whose errors are pages, and which leads strangers to the sign-in."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler around the route's own."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except Exception as error:
                if request.url.path.endswith((".json", ".csv")):
                    raise
                return failed(request, error, await _reason(request, error))

        return answer


async def _reason(request: Request, error: Exception) -> str:
    """Return the reason that was typed: with `no-store`, browsers do not restore a form."""
    if request.method != "POST" or isinstance(error, HTTPException):  # as a broken form is
        return ""
    return str((await request.form()).get("reason", "")).replace("\r\n", "\n")


def failed(request: Request, error: Exception, reason: str = "") -> Response:
    """Return the page of an error, with the reason that was typed; raise a defect."""
    error = as_known(error)
    if isinstance(error, Unauthenticated):
        return RedirectResponse(f"/sign-in?to={quote(_here(request))}", HTTPStatus.SEE_OTHER)
    if isinstance(error, HTTPException):
        status, detail = HTTPStatus(error.status_code), str(error.detail)
    elif isinstance(error, RequestValidationError):
        faults = error.errors()[:10]
        status = HTTPStatus.UNPROCESSABLE_ENTITY
        detail = "; ".join(f"{fault['loc'][-1]}: {fault['msg']}" for fault in faults)
    else:
        expected = error if isinstance(error, LedgerError) else known(error)
        if expected is None:
            raise error
        status, _, detail = answer_to(expected)
    back = _here(request) if request.method == "POST" else "/"
    context = {
        "status": status.value, "phrase": status.phrase, "detail": clean(detail),
        "reason": reason, "back": back,
    }  # fmt: skip
    answer = html(request, "error.html", {"base": None, **context}, status)
    answer.headers.update(retry_headers(status, error))
    return answer


def html(
    request: Request, template: str, context: Mapping[str, Any], status: HTTPStatus
) -> HTMLResponse:
    """Return a page; every one bears the same content security policy."""
    theme = request.cookies.get(THEME, "auto")
    chosen = {
        "theme": theme if theme in THEMES else "auto",
        "zone": zone_of(request),
        "themes": THEMES,
        "now_at": datetime.now(UTC).isoformat(),
        "here": _here(request),
        "path": request.url.path,
        "has_session": kept(request, SESSION) is not None,
    }
    return HTMLResponse(
        rendered(template, {**chosen, **context}),
        status,
        headers={"Content-Security-Policy": _CSP, "Referrer-Policy": "same-origin"},
    )


def _here(request: Request) -> str:
    """Return the page that a person is on: never what an identity provider sent.

    A form is sent to an address that may be no page: it lies on the page that it was sent from.
    """
    if request.url.path == CALLBACK:
        return "/sign-in"
    path, query, host = request.url.path, request.url.query, request.url.netloc
    if request.method == "POST":
        try:
            _, sender, path, query, _ = urlsplit(request.headers.get("referer", ""))
        except ValueError:
            return "/"
        if sender != host:
            return "/"
    return path + (f"?{query}" if query else "")


def zone_of(request: Request) -> tzinfo:
    """Return the time zone that the viewer chose; UTC where none is known."""
    try:
        name = request.cookies.get(ZONE, "UTC")
        return UTC if name == "UTC" else ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        return UTC


def page(router: APIRouter, path: str, *, csv: bool = False) -> Callable[[Endpoint], Endpoint]:
    """Register a page and its other forms: `path`.json, and of a list `path`.csv."""

    def register(endpoint: Endpoint) -> Endpoint:
        # The plain path comes last: a parameter at its end would take the others' ending.
        for ending in (".json", *((".csv",) if csv else ()), ""):
            router.get(path + ending, include_in_schema=False)(endpoint)
        return endpoint

    return register


def router() -> APIRouter:
    """Return a router of pages."""
    return APIRouter(
        route_class=PageRoute, include_in_schema=False, default_response_class=Response
    )


def _csv(rows: Sequence[object]) -> Response:
    text = io.StringIO()
    writer = csv.writer(text)
    for place, row in enumerate(rows):
        plain: dict[str, object] = jsonable(row)
        if place == 0:
            writer.writerow(plain)
        writer.writerow([_cell(value) for value in plain.values()])
    return Response(text.getvalue(), media_type="text/csv; charset=utf-8")


def _cell(value: object) -> str:
    """Return a cell that no spreadsheet takes for a formula; a list is JSON."""
    if isinstance(value, list | dict):
        return safe_json(value)
    text = "" if value is None else clean(value)
    return f"'{text}" if text.startswith(_FORMULA) and isinstance(value, str) else text
