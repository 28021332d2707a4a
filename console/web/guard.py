"""What is refused before a route sees it: foreign hosts and origins, and bodies beyond limits."""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runfold.console.web.problems import problem
from runfold.ledger.payload import MAX_DEPTH
from runfold.ledger.validation import LOOPBACK

BODY_SECONDS: Final = 30.0
"""How long a body may take to arrive."""
BESIDE_BYTES: Final = 65_536
"""Bytes that a body may have beside one payload of the largest size."""
ENVELOPE: Final = 4
"""Levels of nesting of a body around its payload."""
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_FOREIGN: Final = frozenset({"cross-site", "same-site"})
_FORWARDED: Final = (
    "forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip",
)  # fmt: skip
_ONCE: Final = {
    name.lower().encode(): name
    for name in (
        "Authorization", "Runfold-Project", "Idempotency-Key", "If-Match", "Last-Event-ID", "Origin"
    )
}  # fmt: skip
_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[{]|[\]}]', re.DOTALL)
_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


class Refused(Exception):
    """The request is refused, and answered with a problem."""

    def __init__(self, status: HTTPStatus, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail


class Guard:
    """An ASGI application around another one, which gets only requests that are not refused.

    `only_loopback`: refuse every Host but this machine's own names, against DNS rebinding.
    """

    def __init__(self, app: ASGIApp, *, limit_bytes: int, only_loopback: bool) -> None:
        self._app, self._limit = app, limit_bytes + BESIDE_BYTES
        self._only_loopback = only_loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            _check_once(scope)
            self._check_origin(scope, Headers(scope=scope))
            body = await self._in_time(Headers(scope=scope), receive)
        except ClientDisconnect:  # what came may be whole in itself, and is not what was meant
            return
        except Refused as refused:
            response = problem(refused.status, refused.code, refused.detail)
            await response(scope, receive, _secured(send))
            return
        await self._app(scope, _replayed(body, receive), _secured(send))

    def _check_origin(self, scope: Scope, headers: Headers) -> None:
        host = headers.get("host", "")
        if self._only_loopback and _name(host) not in LOOPBACK:
            raise Refused(
                HTTPStatus.FORBIDDEN,
                "foreign-host",
                "this server answers to localhost, 127.0.0.1 and [::1] only",
            )
        if self._only_loopback and _is_passed_on(scope, headers):
            raise Refused(
                HTTPStatus.FORBIDDEN,
                "foreign-host",
                "a proxy passed this request on, and the server is open to its own machine only:"
                " set RUNFOLD_ENV=production, so that the server asks for API tokens",
            )
        if scope["method"] in _SAFE:
            return
        origin = headers.get("origin")
        foreign = origin is not None and _netloc(origin) != host.lower()
        if foreign or headers.get("sec-fetch-site") in _FOREIGN:
            raise Refused(
                HTTPStatus.FORBIDDEN,
                "foreign-origin",
                f"a page of another origin than {host} may change nothing: if {host} is not what"
                " the browser shows, have the proxy pass on the Host",
            )

    async def _in_time(self, headers: Headers, receive: Receive) -> bytes:
        try:
            return await asyncio.wait_for(self._body(headers, receive), BODY_SECONDS)
        except TimeoutError:
            raise Refused(
                HTTPStatus.REQUEST_TIMEOUT,
                "body-too-slow",
                f"the body did not arrive within {BODY_SECONDS:g} s: send a smaller one",
            ) from None

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        """Return the whole body; raise Refused for one that is too large or too deep.

        Raises ClientDisconnect for one that is cut off.
        """
        if headers.get("content-encoding", "identity") != "identity":
            raise Refused(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                "unsupported-media-type",
                "the body is compressed: send it uncompressed",
            )
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length[:20]) > self._limit:
            raise self._too_large()
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            parts.append(message.get("body", b""))
            size, more = size + len(parts[-1]), message.get("more_body", False)
            if size > self._limit:
                raise self._too_large()
        body = b"".join(parts)
        if "json" in headers.get("content-type", "").lower():
            _check_depth(body)
        return body

    def _too_large(self) -> Refused:
        return Refused(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "body-too-large",
            f"a body has at most {self._limit:,} bytes: store large content elsewhere, and pass a"
            " reference and its SHA-256",
        )


def _check_depth(body: bytes) -> None:
    """Raise Refused for JSON that is nested deeper than any payload may be."""
    depth = 0
    for match in _TOKEN.finditer(body):
        first = match[0][:1]
        if first in b"[{":
            depth += 1
        elif first in b"]}":
            depth -= 1
        if depth > MAX_DEPTH + ENVELOPE:
            raise Refused(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "body-too-deep",
                f"the body is nested deeper than {MAX_DEPTH + ENVELOPE} levels: flatten it",
            )


def _check_once(scope: Scope) -> None:
    """Raise Refused for a header twice of which there is one: a proxy may mean the other one."""
    names = [name for name, _ in scope["headers"] if name in _ONCE]
    for name in names:
        if names.count(name) > 1:
            raise Refused(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "invalid-value",
                f"header {_ONCE[name]} is given twice: give it once",
            )


def _is_passed_on(scope: Scope, headers: Headers) -> bool:
    """Whether a proxy passed a request on.

    nginx, unless it is told otherwise, names itself in no header: it asks for the Host that it
    connects to, until its version 1.29.6 by HTTP/1.0, which no browser speaks. A browser then names
    a page of its own site that is on another host.
    """
    referer = headers.get("referer")
    is_elsewhere = referer is not None and _netloc(referer) != headers.get("host", "").lower()
    return (
        scope.get("http_version") == "1.0"
        or (is_elsewhere and headers.get("sec-fetch-site") == "same-origin")
        or any(name in headers for name in _FORWARDED)
    )


def _netloc(origin: str) -> str | None:
    """Return the host and port of an origin; None if it is not an origin."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


def _name(host: str) -> str:
    """Return the name in a Host header, without the port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return a receiver that yields the body once, then what the connection sends."""
    is_read = False

    async def again() -> Message:
        nonlocal is_read
        if is_read:
            return await receive()
        is_read = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _secured(send: Send) -> Send:
    """Return a sender that adds the headers that no route has set itself."""

    async def secured(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return secured
