"""The MCP server over HTTP: stateless, so that each request has only its own token's rights."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from importlib import import_module
from importlib.util import find_spec
from typing import Final

from fastapi import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from runfold.ledger import Ledger

PATH: Final = "/v1/mcp"


class Agents:
    """Answers agents; the SDK is imported at the first request, because the import takes long."""

    def __init__(self) -> None:
        self._ending = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None
        self._served: asyncio.Future[dict[bool, ASGIApp]] | None = None

    async def answer(self, ledger: Ledger, own: Ledger, *, has_token: bool) -> Response:
        """Return the answer to an agent: `ledger` acts for the agent, `own` for the server's login.

        Raises HTTPException without the extra `mcp`.
        """
        if find_spec("mcp") is None:
            raise HTTPException(404, "this server answers no agents: install runfold[mcp] on it")
        if self._served is None:
            self._served = asyncio.get_running_loop().create_future()
            self._keeping = asyncio.create_task(self._keep(self._served))
        served = await asyncio.shield(self._served)
        from runfold.console.agents.asking import ASKING, Asking  # noqa: PLC0415  needs the extra

        asking = Asking(ledger, own, has_token=has_token)

        class _Answer(Response):
            async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
                ASKING.set(asking)  # in the task of this request
                await served[has_token](scope, receive, send)

        return _Answer()

    async def end(self) -> None:
        """End the servers that answer agents."""
        self._ending.set()
        if self._keeping is not None:
            await self._keeping

    async def _keep(self, served: asyncio.Future[dict[bool, ASGIApp]]) -> None:
        """Run a server for agents with a token and one for those without, until the end."""
        try:
            over_http = await asyncio.to_thread(import_module, "runfold.console.agents.over_http")
            async with AsyncExitStack() as stack:
                apps = {has_token: over_http.served(PATH, has_token) for has_token in (True, False)}
                for app in apps.values():
                    await stack.enter_async_context(app.router.lifespan_context(app))
                served.set_result(apps)
                await self._ending.wait()
        except Exception as error:
            if served.done():
                raise
            served.set_exception(error)
