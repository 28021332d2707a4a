"""Batching: calls made at the same time share a statement, a round trip and a commit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Sequence
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from runfold.ledger.errors import DatabaseUnavailable, LedgerError
from runfold.ledger.postgres.errors import is_lost

MOST: Final = 1_000
"""Requests in one statement."""
MOST_CHARACTERS: Final = 16_777_216
"""Content in one statement: the server takes 256 MB in a call, and the answer repeats it."""
PATIENT_SECONDS: Final = 0.05
"""How long requests wait for a statement in flight: one that waits for a lock must not delay
others."""
CANCELED: Final = "57014"
Item = TypeVar("Item")
Result = TypeVar("Result")
Heard_contra = TypeVar("Heard_contra", contravariant=True)


class Listener(Protocol[Heard_contra]):
    """The receiver of an answer: a future, or an object for which no task waits."""

    def done(self) -> bool:
        """Whether nobody waits for the answer any more."""

    def set_result(self, result: Heard_contra, /) -> None:
        """Hear the result."""

    def set_exception(self, exception: BaseException, /) -> None:
        """Take the error instead of a result."""

    def cancel(self) -> bool:
        """End without an answer: the event loop is closing."""


class Waiting(NamedTuple, Generic[Item, Result]):
    """A request that is not answered yet."""

    request: Item
    distinct: Hashable
    result: Listener[Result]


class Batcher(Generic[Item, Result]):
    """Sends a request at once if none is in flight; the ones made meanwhile go together next.

    `send` returns a result for each request, in their order; `weigh` returns the characters of a
    request's content. With `linger` the first of a burst waits for the others for the seconds that
    it returns.

    A statement that was refused or cancelled wrote nothing, so its requests are sent again one by
    one, and only the one to blame gets the error. When the server is away the outcome is unknown,
    and all get that error. Do not batch what may wait on a long-held lock.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        weigh: Callable[[Item], int],
        *,
        linger: Callable[[], float] | None = None,
    ) -> None:
        self._send, self._weigh, self._linger = send, weigh, linger
        self._waiting: list[Waiting[Item, Result]] = []
        self._busy = False
        self._in_flight: set[Hashable] = set()
        """Keys in flight; a second request for one waits for the first result."""
        self._tasks: set[asyncio.Task[None]] = set()
        """Kept here: the event loop itself keeps no task alive."""

    async def ask(self, request: Item, *, distinct: Hashable) -> Result:
        """Send a request and return its result; those with one `distinct` key stay in order."""
        if not self._busy and self._linger is None and distinct not in self._in_flight:
            return await self._ask_alone(request, distinct)
        result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self.hand(request, distinct=distinct, result=result)
        return await result

    def hand(self, request: Item, *, distinct: Hashable, result: Listener[Result]) -> None:
        """Send a request with the next statement, and let `result` hear the answer."""
        self._waiting.append(Waiting(request, distinct, result))
        if not self._busy:
            self._busy = True
            self._start(self._send_waiting())

    async def _ask_alone(self, request: Item, distinct: Hashable) -> Result:
        self._busy = True
        self._in_flight.add(distinct)
        late = asyncio.get_running_loop().call_later(PATIENT_SECONDS, self._go_on)
        try:
            return (await self._send([request]))[0]
        finally:
            self._in_flight.discard(distinct)
            if not late.cancelled() and late.when() > asyncio.get_running_loop().time():
                late.cancel()
                self._go_on()
            elif self._waiting and not self._busy:  # these waited for this very request
                self._go_on()

    def _go_on(self) -> None:
        """Send what waits, or be ready to send at once."""
        self._busy = bool(self._waiting)
        if self._busy:
            self._start(self._send_waiting())

    async def _send_waiting(self) -> None:
        while self._waiting:
            # A caller that has its result may send again at once, together with the others.
            await asyncio.sleep(self._linger() if self._linger is not None else 0)
            if not (batch := self._take()):
                break  # all wait for keys in flight, whose statements go on with them
            sending = self._start(self._answer(batch))
            await asyncio.wait({sending}, timeout=PATIENT_SECONDS)
        self._busy = False

    def _take(self) -> list[Waiting[Item, Result]]:
        batch: dict[Hashable, Waiting[Item, Result]] = {}
        rest, characters = [], 0
        for waiting in self._waiting:
            if waiting.result.done():  # its caller was cancelled before anything was sent
                continue
            characters += self._weigh(waiting.request)
            full = len(batch) == MOST or (batch and characters > MOST_CHARACTERS)
            if full or waiting.distinct in batch or waiting.distinct in self._in_flight:
                rest.append(waiting)
            else:
                batch[waiting.distinct] = waiting
        self._waiting = rest
        self._in_flight.update(batch)
        return list(batch.values())

    async def _answer(self, batch: list[Waiting[Item, Result]]) -> None:
        try:
            await self._answer_all(batch)
        finally:
            self._in_flight.difference_update(waiting.distinct for waiting in batch)
            if self._waiting and not self._busy:
                self._go_on()

    async def _answer_all(self, batch: list[Waiting[Item, Result]]) -> None:
        try:
            results = await self._send([waiting.request for waiting in batch])
        except Exception as error:
            if len(batch) > 1 and _wrote_nothing(error):
                for waiting in batch:
                    await self._answer_all([waiting])
                return
            for waiting in batch:
                if not waiting.result.done():
                    waiting.result.set_exception(error)
            return
        except asyncio.CancelledError:
            for waiting in batch:
                waiting.result.cancel()
            raise
        for waiting, result in zip(batch, results, strict=True):
            if not waiting.result.done():
                waiting.result.set_result(result)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def characters(body: str | None) -> int:
    """Return the length of a payload's text."""
    return 0 if body is None else len(body)


def _wrote_nothing(error: Exception) -> bool:
    """Whether a statement surely had no effect: it was refused, or cancelled by the server."""
    if not isinstance(error, LedgerError):
        return False
    cause = error.__cause__
    return (
        not isinstance(error, DatabaseUnavailable)
        or is_lost(cause)
        or getattr(cause, "sqlstate", None) == CANCELED
    )
