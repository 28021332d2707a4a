"""Cookies that hold a secret: how a browser names, keeps and forgets them."""

from __future__ import annotations

from typing import Final, Literal

from fastapi import Request
from fastapi.responses import Response

from runfold.ledger.validation import LOOPBACK

SESSION: Final = "runfold_session"
FLOW: Final = "runfold_flow"


def kept(request: Request, name: str) -> str | None:
    """Return what the browser keeps under a name."""
    return request.cookies.get(_named(request, name))


def keep(
    request: Request,
    response: Response,
    name: str,
    secret: str,
    *,
    seconds: int,
    same_site: Literal["strict", "lax"],
) -> None:
    """Have the browser keep a secret that no script reads, and that goes to this host alone.

    Over plain HTTP it does so on this machine's own names only.
    """
    response.set_cookie(
        _named(request, name),
        secret,
        max_age=seconds,
        httponly=True,
        samesite=same_site,
        secure=_is_private(request),
    )


def forget(request: Request, response: Response, name: str) -> None:
    """Have the browser forget a secret."""
    response.delete_cookie(_named(request, name), secure=_is_private(request), httponly=True)


def _named(request: Request, name: str) -> str:
    """Return the name in the browser, which takes one with the prefix from this host alone.

    Another host of the domain could else sign a person in as somebody else (RFC 6265bis, 4.1.3.2).
    """
    return f"__Host-{name}" if _is_private(request) else name


def _is_private(request: Request) -> bool:
    """Whether cookies need TLS: everywhere but on this machine's own names."""
    return request.url.scheme == "https" or request.url.hostname not in LOOPBACK
