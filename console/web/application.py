"""The ASGI application: what it opens, its routes, and the handlers of its errors."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match

from runfold.console.web import pages, problems
from runfold.console.web.agents import Agents
from runfold.console.web.api import routers
from runfold.console.web.callers import Callers
from runfold.console.web.guard import Guard
from runfold.console.web.options import Options
from runfold.console.web.pages.viewing import failed
from runfold.console.web.provider import Provider
from runfold.console.web.rebuilds import Rebuilds
from runfold.console.web.running_bulks import RunningBulks
from runfold.console.web.wakeups import Wakeups
from runfold.ledger import Ledger
from runfold.ledger.settings import Settings
from runfold.version import __version__


def make(ledger: Ledger | None, options: Options | None) -> FastAPI:
    """Return the application; see `runfold.console.web.app`."""
    chosen = options or Options()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            own = ledger
            if own is None:
                own = await stack.enter_async_context(Ledger.open(chosen.url, chosen.project))
            app.state.callers = Callers(own, chosen)
            app.state.wakeups = Wakeups(own)
            app.state.bulks = RunningBulks()
            app.state.agents = Agents()
            app.state.rebuilds = Rebuilds()
            try:
                yield
            finally:
                await app.state.agents.end()
                await app.state.rebuilds.end()
                await app.state.bulks.end()
                await app.state.wakeups.end()

    app = FastAPI(
        title="Runfold",
        version=__version__,
        summary="An event-sourced run ledger on PostgreSQL: every claim about a run, provable.",
        openapi_url="/v1/openapi.json",
        docs_url=None,  # FastAPI's page loads scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # they lead to http, even behind a proxy that speaks TLS
        lifespan=lifespan,
        routes=_routes(),
    )
    app.state.ending, app.state.streams = asyncio.Event(), Counter[str]()
    app.state.ready_checked_at, app.state.unready = 0.0, None
    problems.answer(app)
    app.add_exception_handler(HTTPException, _of_http)
    settings = ledger.settings if ledger is not None else Settings.load()
    app.state.provider = Provider.of(settings)
    app.add_middleware(Guard, limit_bytes=settings.payload_limit_bytes, only_loopback=chosen.open)
    return app


async def _of_http(request: Request, error: Exception) -> Response:
    """Answer a browser at an address that is no page by a page, anything else by a problem."""
    assert isinstance(error, HTTPException)
    is_page = not request.url.path.startswith("/v1/")
    is_browser = "text/html" in request.headers.get("accept", "")
    is_misused = error.status_code == HTTPStatus.METHOD_NOT_ALLOWED
    if is_misused:
        error.headers = {"Allow": ", ".join(_methods(request))}
    if is_page and is_browser and (is_misused or "endpoint" not in request.scope):
        answer = failed(request, HTTPException(error.status_code, "there is no such page"))
        answer.headers.update(error.headers or {})
        return answer
    return await problems.of_http(request, error)


def _methods(request: Request) -> list[str]:
    """Return the methods that a path takes: the error names those of one of its routes."""
    return [
        method
        for method in ("DELETE", "GET", "HEAD", "POST", "PUT")
        for asked in [{**request.scope, "method": method}]
        if any(route.matches(asked)[0] is Match.FULL for route in request.app.routes)
    ]


@cache
def _routes() -> list[BaseRoute]:
    """Return the routes, shared by all applications: FastAPI takes 0.2 s to make them."""
    routed = FastAPI(openapi_url=None, responses=problems.RESPONSES)
    for router in (*routers(), *pages.routers()):
        routed.include_router(router)
    return routed.routes
