"""A subscription: a project's events as an async iterator, from any point of the past on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from math import inf
from time import monotonic
from typing import Final

from runfold.ledger.arguments import check_state
from runfold.ledger.events import Event, check_named_types
from runfold.ledger.postgres.connections import Pool
from runfold.ledger.reading import feed
from runfold.ledger.reading.feed import Checkpoint, Filter
from runfold.ledger.reading.permitted import check_may_read
from runfold.ledger.validation import check_list, check_text

PAGE: Final = 1_000
SOONEST_SECONDS: Final = 0.01
LATEST_SECONDS: Final = 0.25
"""The longest pause of a reader that finds nothing; the first is 10 ms, each one doubles.

See docs/decisions/0016."""
CHECK_SECONDS: Final = 60.0
"""How often a subscription asks whether its credential still has the right."""


class Pauses:
    """How long a reader of the feed waits before it looks again: longer while nothing is new."""

    def __init__(self) -> None:
        self._seconds = SOONEST_SECONDS

    def restart(self) -> None:
        """Something was new."""
        self._seconds = SOONEST_SECONDS

    async def pause(self) -> None:
        """Wait, and longer the next time."""
        await asyncio.sleep(self.following())

    def following(self) -> float:
        """Return the seconds to wait now; the next pause is longer."""
        seconds = self._seconds
        self._seconds = min(seconds * 2, LATEST_SECONDS)
        return seconds


class Subscription:
    """Yields every event once, each run's in order; made by `Ledger.subscribe`.

    `checkpoint` is the place after the last event: a program that keeps it goes on there, also in
    another process. An event is given again only if the checkpoint after it was not kept.
    """

    def __init__(
        self,
        pool: Pool,
        project_id: str,
        checkpoint: Checkpoint | None,
        which: Filter,
        *,
        live: bool,
    ) -> None:
        """Start nothing yet; without a checkpoint begin at the moment of the first reading."""
        self._pool, self._project_id = pool, project_id
        self._checkpoint, self._which, self._live = checkpoint, which, live
        self._checked_at = -inf

    @property
    def checkpoint(self) -> str | None:
        """Where to go on, as text; None until the first read of one that begins now."""
        return None if self._checkpoint is None else str(self._checkpoint)

    async def begin(self) -> None:
        """Fix the place where it begins, which a first iteration does otherwise; may be repeated.

        Whatever is committed after this is given. Raises as iterating does.
        """
        await self._check_may()
        if self._checkpoint is None:
            self._checkpoint = await feed.now(self._pool)

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Yield the events; goes on where it was when iterated again.

        Raises AccessDenied, UnknownProject, FeedMoved, FeedOnStandby, FeedArchived,
        CheckpointUnknown or DatabaseUnavailable.
        """
        async for page in self.pages():
            for event, checkpoint in page:
                self._checkpoint = checkpoint
                yield event

    async def pages(self) -> AsyncIterator[list[tuple[Event, Checkpoint]]]:
        """Yield the events as they are read, some at a time, each with the place after it.

        A page counts as read when the next is asked for. Raises as iterating does.
        """
        await self.begin()
        assert self._checkpoint is not None
        pauses = Pauses()
        while True:
            await self._check_may()
            towards = await feed.towards(self._pool, self._checkpoint, PAGE)
            if towards is None:
                if not self._live:
                    return
                await pauses.pause()
                continue
            pauses.restart()
            events, after = await feed.read(self._pool, towards, PAGE, self._which)
            if events:
                yield [(event, towards.moved(event.position)) for event in events]
            self._checkpoint = after

    async def _check_may(self) -> None:
        """Raise AccessDenied without a right that shows events; ask at most once a minute.

        Pages ask by themselves: this is for a reader to whom nothing new is given.
        """
        if monotonic() - self._checked_at >= CHECK_SECONDS:
            await check_may_read(self._pool, self._project_id)
            self._checked_at = monotonic()


def subscribe(
    pool: Pool,
    project_id: str,
    *,
    after: str | None,
    types: Sequence[str] | None,
    kinds: Sequence[str] | None,
    states: Sequence[str] | None,
    heartbeats: bool,
    live: bool,
) -> Subscription:
    """Return a subscription of a project's events; see `Ledger.subscribe`."""
    if kinds is not None:
        check_list("kinds", kinds, "kinds")
    for kind in kinds or ():
        check_text("kinds", kind)
    if types is not None:
        types = check_named_types("types", types)
    without = None if heartbeats or types is not None else ["lease.heartbeat"]
    chosen = Filter(
        project_id,
        types,
        without,
        kinds,
        None if states is None else [check_state(state).value for state in states],
    )
    return Subscription(pool, project_id, _checkpoint(after), chosen, live=live)


def _checkpoint(after: str | None) -> Checkpoint | None:
    if after == "now":
        return None
    return Checkpoint() if after is None else Checkpoint.parse(after)
