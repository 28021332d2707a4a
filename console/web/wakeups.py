"""Requests that wait for work: they look again at a wake-up of the project, or after a pause."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final

from fastapi import Request

from runfold.ledger import Ledger
from runfold.workers.duties.wakeup_listener import Wakeup

MAX_PROJECTS: Final = 20
"""Projects with a connection that listens; requests of others look again after a pause."""


async def until_first(*waits: Awaitable[object], seconds: float) -> None:
    """Return when one of these is done or the time is over; raise what it raised."""
    tasks = [asyncio.ensure_future(each) for each in waits]
    try:
        done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for each in done:
            each.result()
    finally:
        for each in tasks:
            each.cancel()


async def hung_up(request: Request) -> None:
    """Return when the caller has gone away; the request's body must be of no more use."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


class Wakeups:
    """Listens for each project that a request has waited for, with the server's own login."""

    def __init__(self, own: Ledger) -> None:
        self._own = own
        self._heard: dict[str, asyncio.Event] = {}
        self._duties: dict[str, asyncio.Task[None]] = {}

    async def wait(self, project_id: str, seconds: float, ending: asyncio.Event) -> None:
        """Return at a wake-up of the project, after `seconds`, or when the server ends."""
        self._listen(project_id)
        heard = self._heard.setdefault(project_id, asyncio.Event())
        await until_first(heard.wait(), ending.wait(), seconds=seconds)

    def _listen(self, project_id: str) -> None:
        own = self._own
        listens = own.settings.listen and own.url is not None
        if not listens or project_id in self._duties or len(self._duties) >= MAX_PROJECTS:
            return

        def wake() -> None:
            heard = self._heard.pop(project_id, None)
            if heard is not None:
                heard.set()

        ledger = Ledger(own.pool, project_id, own.settings, own.url, own.project.speaker)
        self._duties[project_id] = asyncio.create_task(Wakeup(ledger, wake).run())

    async def end(self) -> None:
        """Stop listening."""
        duties = list(self._duties.values())
        for duty in duties:
            duty.cancel()
        await asyncio.gather(*duties, return_exceptions=True)
