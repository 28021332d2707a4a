"""Signing in by an identity provider: the way there, and the way back."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from fastapi import Request
from fastapi.responses import RedirectResponse, Response
from starlette.exceptions import HTTPException

from runfold.console.web.callers import Callers
from runfold.console.web.flows import FLOW_SECONDS
from runfold.console.web.pages import cookies
from runfold.console.web.pages.cookies import FLOW, keep, kept
from runfold.console.web.pages.sign_in import asking, forget, local, remember
from runfold.console.web.pages.viewing import html, router
from runfold.console.web.provider import Provider
from runfold.console.web.sign_in_errors import ProviderDown, SignInRefused
from runfold.ledger import names, sessions
from runfold.ledger.errors import AccessDenied, InvalidValue
from runfold.ledger.log import logger
from runfold.ledger.settings import CALLBACK

_REFUSED: Final = (
    "The identity provider's answer does not let you in: begin again from here. A sign-in holds"
    " for ten minutes, once, in the browser that began it."
)
_DOWN: Final = "Nobody can sign in by the identity provider now: the server's log says why."
pages = router()


@pages.get("/sign-in/provider")
async def leave(request: Request, to: str = "/") -> Response:
    """Lead to the provider, and have the browser remember the sign-in that it began."""
    provider = _provider(request)
    try:
        flow = provider.flows.begin(local(to))
        response = RedirectResponse(await provider.address(flow), HTTPStatus.SEE_OTHER)
    except ProviderDown as error:
        return _failed(request, error)
    await forget(request)
    cookie = provider.flows.cookie(flow)
    # The provider's redirect must bring it.
    keep(request, response, FLOW, cookie, seconds=FLOW_SECONDS, same_site="lax")
    return response


@pages.get(CALLBACK)
async def come_back(request: Request) -> Response:
    """Begin the session of the user whom the provider names.

    The cookie of a session is not sent along a redirect from another site, so a page leads on.
    """
    provider = _provider(request)
    try:
        flow = provider.flows.known(kept(request, FLOW) or "")
        subject = await provider.subject(flow, request.query_params)
        response = await _begun(request, provider.issuer, subject, flow.to)
    except (SignInRefused, ProviderDown) as error:
        response = _failed(request, error)
    cookies.forget(request, response, FLOW)
    return response


async def _begun(request: Request, issuer: str, subject: str, to: str) -> Response:
    callers: Callers = request.app.state.callers
    try:
        secret = await sessions.by_provider(callers.own.pool, issuer, subject)
    except InvalidValue:  # no user can have such a subject
        secret = None
    except AccessDenied as error:
        raise ProviderDown("the server's login lacks the right admin in all projects") from error
    known = {"base": None, "issuer": issuer, "subject": subject, "to": to}
    if secret is None:
        return html(request, "unknown_subject.html", known, HTTPStatus.FORBIDDEN)
    response = html(request, "signed_in.html", known, HTTPStatus.OK)
    remember(request, response, secret)
    return response


def _provider(request: Request) -> Provider:
    """Return the provider, and count the request as a stranger's."""
    callers: Callers = request.app.state.callers
    callers.count_stranger(request.client.host if request.client else "")
    provider: Provider | None = request.app.state.provider
    if provider is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, "this server has no identity provider")
    return provider


def _failed(request: Request, error: SignInRefused | ProviderDown) -> Response:
    logger().warning(names.PROVIDER_REFUSED, reason=str(error))
    if isinstance(error, ProviderDown):
        return asking(request, "/", _DOWN, HTTPStatus.BAD_GATEWAY)
    return asking(request, "/", _REFUSED, HTTPStatus.FORBIDDEN)
