"""Signing in with an API token, and what a viewer chooses: the theme and the time zone."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo

from fastapi import Form, Request
from fastapi.responses import FileResponse, RedirectResponse, Response

from runfold.console.web.callers import Callers
from runfold.console.web.pages.rendering import ASSETS
from runfold.console.web.pages.viewing import SESSION, THEME, THEMES, ZONE, html, router
from runfold.console.web.problems import Unauthenticated
from runfold.ledger.errors import AccessDenied, InvalidValue, UnknownProject

SECONDS: Final = 12 * 3_600
"""How long a session lasts."""
_YEAR: Final = 365 * 86_400
pages = router()


@pages.get("/")
async def home(request: Request) -> Response:
    """Lead to the server's own project."""
    callers: Callers = request.app.state.callers
    return RedirectResponse(f"/p/{callers.own.project_id}", HTTPStatus.SEE_OTHER)


@pages.get("/assets/{name}")
async def asset(name: Literal["console.css", "console.js", "icon.svg"]) -> Response:
    """Return what all pages share; the address changes with it."""
    return FileResponse(
        ASSETS / name, headers={"Cache-Control": "public, max-age=31536000, immutable"}
    )


@pages.get("/sign-in")
async def form(request: Request, to: str = "/") -> Response:
    """Ask for a token."""
    return html(request, "sign_in.html", {"base": None, "to": to, "problem": None}, HTTPStatus.OK)


@pages.post("/sign-in")
async def sign_in(
    request: Request, token: Annotated[str, Form()] = "", to: Annotated[str, Form()] = "/"
) -> Response:
    """Keep the token in a cookie that no script reads and no other site sends."""
    callers: Callers = request.app.state.callers
    client = request.client.host if request.client else ""
    secret = token.strip()
    try:
        await callers.ledger(secret, _project_of(to), ("read",), client)
    except (Unauthenticated, InvalidValue, AccessDenied, UnknownProject):
        problem = "This token is unknown, revoked, past its end, or may not read this project."
        context = {"base": None, "to": to, "problem": problem}
        return html(request, "sign_in.html", context, HTTPStatus.FORBIDDEN)
    response = RedirectResponse(_local(to), HTTPStatus.SEE_OTHER)
    response.set_cookie(
        SESSION,
        secret,
        max_age=SECONDS,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return response


@pages.post("/sign-out")
async def sign_out() -> Response:
    """Forget the token."""
    response = RedirectResponse("/sign-in", HTTPStatus.SEE_OTHER)
    response.delete_cookie(SESSION)
    return response


@pages.post("/view")
async def view(
    theme: Annotated[str, Form()] = "auto",
    zone: Annotated[str, Form()] = "UTC",
    to: Annotated[str, Form()] = "/",
) -> Response:
    """Remember the theme and the time zone. Raises InvalidValue for a zone that is none."""
    try:
        ZoneInfo(zone)
    except (ValueError, OSError, KeyError):
        raise InvalidValue("zone", zone, "must be a time zone such as Europe/Berlin") from None
    response = RedirectResponse(_local(to), HTTPStatus.SEE_OTHER)
    for name, value in ((THEME, theme if theme in THEMES else "auto"), (ZONE, zone)):
        response.set_cookie(name, value, max_age=_YEAR, httponly=True, samesite="strict")
    return response


def _local(to: str) -> str:
    """Return the path if it is one of this site, else `/`."""
    plain = to.startswith("/") and not to.startswith("//") and "\\" not in to and to.isprintable()
    return to if plain else "/"


def _project_of(to: str) -> str | None:
    parts = to.partition("?")[0].split("/")
    return parts[2] if len(parts) > 2 and parts[1] == "p" and parts[2] else None  # noqa: PLR2004
