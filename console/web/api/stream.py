"""The stream of a project's events as they are committed; it resumes where it was broken."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Any, Final, TypeAlias

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent

from runfold.console.web.api.shapes import shown_event
from runfold.console.web.callers import Reader
from runfold.console.web.problems import of_error
from runfold.console.web.rates import TooManyRequests
from runfold.console.web.read_log import reads_of
from runfold.ledger import Ledger
from runfold.ledger.errors import LedgerError
from runfold.ledger.events import Event
from runfold.ledger.reading.feed import Checkpoint
from runfold.ledger.reading.subscription import Subscription

router = APIRouter(tags=["events"])
BUSY_SECONDS: Final = 5
Page: TypeAlias = list[tuple[Event, Checkpoint]]


async def subscription(
    request: Request,
    ledger: Reader,
    *,
    types: Annotated[list[str] | None, Query()] = None,
    kinds: Annotated[list[str] | None, Query()] = None,
    states: Annotated[list[str] | None, Query()] = None,
    heartbeats: bool = False,
    after: Annotated[str, Query(description="An event's id, `start`, or `now`.")] = "now",
    last: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
) -> AsyncIterator[Subscription]:
    """Yield a subscription that has begun; its errors are answers, not the ends of streams.

    It begins before the client sees the stream open: whatever the client does then is in it.
    """
    begin = last or after
    subscription = ledger.subscribe(
        after=None if begin == "start" else begin,
        types=types,
        kinds=kinds,
        states=states,
        heartbeats=heartbeats,
    )
    with counted(request, ledger):
        await subscription.begin()
        yield subscription


@contextmanager
def counted(request: Request, ledger: Ledger) -> Iterator[None]:
    """Count one stream of a caller. Raises TooManyRequests beyond the most at a time.

    Nobody gets more than half of them, so that one caller leaves some for the others.
    """
    streams: Counter[str] = request.app.state.streams
    most: int = request.app.state.callers.options.max_streams
    caller = ledger.actor
    if streams.total() >= most or streams[caller] >= most / 2:
        raise TooManyRequests(BUSY_SECONDS)
    streams[caller] += 1
    try:
        yield
    finally:
        streams[caller] -= 1
        if not streams[caller]:
            del streams[caller]


@router.get("/events", operation_id="events", response_class=EventSourceResponse)
async def events(
    request: Request, ledger: Reader, following: Annotated[Subscription, Depends(subscription)]
) -> AsyncIterator[ServerSentEvent]:
    """Follow the project's events, each once, in order within a run. Needs the right read.

    An event's id, sent in Last-Event-ID or `after`, resumes behind that event. The stream ends when
    the server does; a client connects again. An event `problem` says why the stream ended
    otherwise. `now` begins with what is committed from now on.
    """
    ending: asyncio.Event = request.app.state.ending
    try:
        async for page in until(following.pages(), ending):
            # All at once: a statement for each event would make the stream as slow as those are.
            shown = {event.run_id for event, _ in page if event.content()}
            await reads_of(request).note_runs(request, ledger, shown)
            for event, checkpoint in page:
                if ending.is_set():
                    return
                yield ServerSentEvent(data=shown_event(event), event=event.type, id=str(checkpoint))
    except LedgerError as error:
        yield ServerSentEvent(data=json.loads(bytes(of_error(error).body)), event="problem")


async def until(pages: AsyncIterator[Page], ending: asyncio.Event) -> AsyncIterator[Page]:
    """Yield the pages until the server is told to end."""
    ended = asyncio.ensure_future(ending.wait())
    next_page: asyncio.Task[Any] | None = None
    try:
        while True:
            next_page = asyncio.ensure_future(anext(pages))
            await asyncio.wait({next_page, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not next_page.done():
                return
            yield next_page.result()
    finally:
        ended.cancel()
        if next_page is not None and not next_page.done():
            next_page.cancel()
            with suppress(asyncio.CancelledError):
                await next_page
