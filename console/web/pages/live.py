"""The stream that makes an open page load again; it does not say what changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent

from runfold.console.web.api.stream import counted
from runfold.console.web.pages.viewing import ReadViewer
from runfold.ledger.errors import LedgerError
from runfold.ledger.events import Event
from runfold.ledger.reading.subscription import Subscription

QUIET_SECONDS: Final = 0.5
"""The shortest time between two messages, however much happens."""

pages = APIRouter(include_in_schema=False)


async def subscription(
    request: Request,
    viewer: ReadViewer,
    last: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
) -> AsyncIterator[Subscription]:
    """Begin to follow the viewer's project, now or where the stream was broken."""
    following = viewer.ledger.subscribe(after=last or "now")
    with counted(request, viewer.ledger):
        with suppress(LedgerError):  # the page's own next request says what is wrong
            await following.begin()  # the page looks once more when it sees the stream open
        yield following


@pages.get("/p/{project}/live", response_class=EventSourceResponse)
async def live(
    request: Request,
    following: Annotated[Subscription, Depends(subscription)],
    run: UUID | None = None,
) -> AsyncIterator[ServerSentEvent]:
    """Send a message without content when something happened in the project, or to one run."""
    with suppress(LedgerError):  # the page's own next request says what is wrong
        async for checkpoint in changes(following, request.app.state.ending, run):
            yield ServerSentEvent(data="", event="change", id=checkpoint)


async def changes(
    following: Subscription, ending: asyncio.Event, run: UUID | None
) -> AsyncIterator[str]:
    """Yield the checkpoint after new events, those that come close together as one."""
    loop = asyncio.get_running_loop()
    reading, ended = aiter(following), asyncio.ensure_future(ending.wait())
    next_event: asyncio.Future[Event] | None = None
    has_changed, quiet_until = False, 0.0
    try:
        while not ended.done():
            next_event = next_event or asyncio.ensure_future(anext(reading))
            left = max(quiet_until - loop.time(), 0) if has_changed else None
            waits: set[asyncio.Future[Any]] = {next_event, ended}
            await asyncio.wait(waits, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if next_event.done():
                has_changed |= run in {None, next_event.result().run_id}
                next_event = None
            if has_changed and loop.time() >= quiet_until:
                has_changed, quiet_until = False, loop.time() + QUIET_SECONDS
                yield following.checkpoint or ""
    finally:
        ended.cancel()
        if next_event is not None:
            next_event.cancel()
            with suppress(asyncio.CancelledError, LedgerError):
                await next_event
