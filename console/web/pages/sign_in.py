"""Signing in and out, and what a viewer chooses: the theme and the time zone."""

from __future__ import annotations

from contextlib import suppress
from http import HTTPStatus
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from fastapi import Form, Request
from fastapi.responses import RedirectResponse, Response

from runfold.console.web.callers import MAX_SECRET, Callers
from runfold.console.web.pages import cookies
from runfold.console.web.pages.cookies import SESSION
from runfold.console.web.pages.rendering import ASSETS, EDITION
from runfold.console.web.pages.viewing import THEME, THEMES, ZONE, html, router
from runfold.ledger import sessions
from runfold.ledger.errors import InvalidValue
from runfold.ledger.sessions import SESSION_PREFIX, SESSION_SECONDS
from runfold.ledger.users import MAX_PASSWORD
from runfold.ledger.validation import LOOPBACK

_NOT_LET_IN: Final = (
    "Not let in: the name, the password or the token is unknown, wrong, revoked or past its end."
    " After ten wrong passwords, a user has one try a minute."
)
_IN_THE_OPEN: Final = (
    "Not let in: this page came over http, where a browser keeps no session and others can read the"
    " password. Open it over https: the server belongs behind a proxy with TLS."
)
_YEAR: Final = 365 * 86_400
_TYPES: Final = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
pages = router()


@pages.get("/")
async def home(request: Request) -> Response:
    """Lead to the server's own project."""
    callers: Callers = request.app.state.callers
    return RedirectResponse(f"/p/{callers.own.project_id}", HTTPStatus.SEE_OTHER)


@pages.get("/assets/{name}")
async def asset(
    name: Literal["console.css", "console.js", "verify.js", "icon.svg"], v: str = ""
) -> Response:
    """Return a file that all pages share; its address changes with its content.

    A page may come from a server of another version: nobody may keep this file as that one's.
    """
    lasting = {"Cache-Control": "public, max-age=31536000, immutable"}
    headers = lasting if v == EDITION else None
    media_type = _TYPES[name.rpartition(".")[2]]
    return Response(ASSETS[name], media_type=media_type, headers=headers)


@pages.get("/sign-in")
async def form(request: Request, to: str = "/") -> Response:
    """Ask for a password or a token."""
    return asking(request, to, None, HTTPStatus.OK)


def asking(request: Request, to: str, problem: str | None, status: HTTPStatus) -> Response:
    """Return the page that asks a person to sign in, with the problem of the last try, if any."""
    by_provider, callers = request.app.state.provider is not None, request.app.state.callers
    context = {
        "base": None, "to": to, "problem": problem, "by_provider": by_provider,
        "open": callers.options.open,
    }  # fmt: skip
    return html(request, "sign_in.html", context, status)


@pages.post("/sign-in")
async def sign_in(
    request: Request,
    token: Annotated[str, Form(max_length=MAX_SECRET)] = "",
    user: Annotated[str, Form(max_length=200)] = "",
    password: Annotated[str, Form(max_length=MAX_PASSWORD)] = "",
    to: Annotated[str, Form()] = "/",
) -> Response:
    """Begin a session, whose secret is kept in a cookie that no script reads."""
    if _is_in_the_open(request):
        return asking(request, to, _IN_THE_OPEN, HTTPStatus.FORBIDDEN)
    callers: Callers = request.app.state.callers
    client = request.client.host if request.client else ""
    callers.count_stranger(client)
    try:
        if token:
            secret = await sessions.by_token(callers.own.pool, token.strip())
        else:
            callers.tries.take((client, user))
            secret = await sessions.by_password(callers.own.pool, user, password)
    except InvalidValue:
        secret = None
    if secret is None:
        return asking(request, to, _NOT_LET_IN, HTTPStatus.FORBIDDEN)
    await forget(request)
    response = RedirectResponse(local(to), HTTPStatus.SEE_OTHER)
    remember(request, response, secret)
    return response


def remember(request: Request, response: Response, secret: str) -> None:
    """Keep a session's secret in a cookie, sent from no other site."""
    cookies.keep(request, response, SESSION, secret, seconds=SESSION_SECONDS, same_site="strict")


def _is_in_the_open(request: Request) -> bool:
    """Whether the browser has the page over plain HTTP, and so would drop the cookie.

    It says so by the origin: what the server sees may come from a proxy that speaks TLS.
    """
    origin = urlsplit(request.headers.get("origin", ""))
    return origin.scheme == "http" and origin.hostname not in LOOPBACK


async def forget(request: Request) -> None:
    """End the session that the request bears, if any."""
    callers: Callers = request.app.state.callers
    secret = cookies.kept(request, SESSION) or ""
    if secret.startswith(SESSION_PREFIX) and len(secret) <= MAX_SECRET:
        await sessions.end(callers.own.pool, secret)


@pages.post("/sign-out")
async def sign_out(request: Request) -> Response:
    """End the session, here and in the database."""
    with suppress(InvalidValue):
        await forget(request)
    callers: Callers = request.app.state.callers
    away = "/" if callers.options.open else "/sign-in"
    response = RedirectResponse(away, HTTPStatus.SEE_OTHER)
    cookies.forget(request, response, SESSION)
    return response


@pages.post("/view")
async def view(
    theme: Annotated[str, Form()] = "auto",
    zone: Annotated[str, Form()] = "UTC",
    to: Annotated[str, Form()] = "/",
) -> Response:
    """Remember the theme and the time zone. Raises InvalidValue for an unknown zone."""
    try:
        ZoneInfo(zone)
    except (ValueError, OSError, KeyError):
        raise InvalidValue("zone", zone, "must be a time zone such as Europe/Berlin") from None
    response = RedirectResponse(local(to), HTTPStatus.SEE_OTHER)
    for name, value in ((THEME, theme if theme in THEMES else "auto"), (ZONE, zone)):
        response.set_cookie(name, value, max_age=_YEAR, httponly=True, samesite="strict")
    return response


def local(to: str) -> str:
    """Return the path if it is on this site, else `/`."""
    plain = to.startswith("/") and not to.startswith("//") and "\\" not in to and to.isprintable()
    return to if plain else "/"
