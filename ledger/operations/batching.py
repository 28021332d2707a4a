"""Calls that are made at the same time share a statement: one round trip and one commit for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Sequence
from typing import Any, Final, Generic, TypeAlias, TypeVar

from runfold.ledger.errors import DatabaseUnavailable, LedgerError
from runfold.ledger.postgres.connections import LOST

MOST: Final = 1_000
MOST_CHARACTERS: Final = 16_777_216
"""Content in one statement: the server takes 256 MB in a call, and the answer holds it again."""
PATIENT_SECONDS: Final = 0.05
"""How long others wait for a statement on its way: one that waits for somebody's lock must hold nobody else up."""
CANCELED: Final = "57014"
Row: TypeAlias = tuple[Any, ...]
Q = TypeVar("Q")
A = TypeVar("A")
Asked: TypeAlias = tuple[Q, Hashable, "asyncio.Future[A]"]


class Shared(Generic[Q, A]):
    """Sends a question at once when none is on its way; what is asked meanwhile goes together, as the next statement.

    `send` gives an answer for each question, in their order; `weigh` the characters of its content. With `linger`, seconds,
    the first of a burst waits for the others. A statement that is refused or cancelled wrote nothing, so its questions are
    asked again one by one, and only who was to blame gets the error. When the server is away nobody knows what became of
    them, and all get that error. A question about something that may be locked for long is not for sharing.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Q]], Awaitable[Sequence[A]]],
        weigh: Callable[[Q], int],
        *,
        linger: float | None = None,
    ) -> None:
        self._send, self._weigh, self._linger = send, weigh, linger
        self._waiting: list[Asked[Q, A]] = []
        self._busy = False
        self._under_way: set[Hashable] = set()
        """What is distinct in the statements that were sent: nothing of it is asked again before they are answered."""
        self._tasks: set[asyncio.Task[None]] = set()
        """Kept here: the loop itself keeps no task alive."""

    async def ask(self, question: Q, *, distinct: Hashable) -> A:
        """Get an answer. Questions that are the same in what is `distinct` follow one another, in the order asked."""
        if not self._busy and self._linger is None and distinct not in self._under_way:
            return await self._ask_alone(question, distinct)
        answer: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, distinct, answer))
        if not self._busy:
            self._busy = True
            self._start(self._send_waiting())
        return await answer

    async def _ask_alone(self, question: Q, distinct: Hashable) -> A:
        self._busy = True
        self._under_way.add(distinct)
        late = asyncio.get_running_loop().call_later(PATIENT_SECONDS, self._go_on)
        try:
            return (await self._send([question]))[0]
        finally:
            self._under_way.discard(distinct)
            if not late.cancelled() and late.when() > asyncio.get_running_loop().time():
                late.cancel()
                self._go_on()
            elif self._waiting and not self._busy:  # what had to wait for this very one
                self._go_on()

    def _go_on(self) -> None:
        """Send what waits, or be ready to send at once."""
        self._busy = bool(self._waiting)
        if self._busy:
            self._start(self._send_waiting())

    async def _send_waiting(self) -> None:
        while self._waiting:
            # Who got an answer may ask again at once: together with the others.
            await asyncio.sleep(self._linger or 0)
            if not (taken := self._take()):
                break  # all of it waits for statements under way, which go on with it
            sending = self._start(self._answer(taken))
            await asyncio.wait({sending}, timeout=PATIENT_SECONDS)
        self._busy = False

    def _take(self) -> list[Asked[Q, A]]:
        taken: dict[Hashable, Asked[Q, A]] = {}
        rest, characters = [], 0
        for question, distinct, answer in self._waiting:
            if answer.done():  # who asked was cancelled, before anything was sent
                continue
            characters += self._weigh(question)
            full = len(taken) == MOST or (taken and characters > MOST_CHARACTERS)
            if full or distinct in taken or distinct in self._under_way:
                rest.append((question, distinct, answer))
            else:
                taken[distinct] = (question, distinct, answer)
        self._waiting = rest
        self._under_way.update(taken)
        return list(taken.values())

    async def _answer(self, taken: list[Asked[Q, A]]) -> None:
        try:
            await self._answer_all(taken)
        finally:
            self._under_way.difference_update(distinct for _, distinct, _ in taken)
            if self._waiting and not self._busy:
                self._go_on()

    async def _answer_all(self, taken: list[Asked[Q, A]]) -> None:
        try:
            answers = await self._send([question for question, _, _ in taken])
        except Exception as error:
            if len(taken) > 1 and _wrote_nothing(error):
                for one in taken:
                    await self._answer_all([one])
                return
            for _, _, answer in taken:
                if not answer.done():
                    answer.set_exception(error)
            return
        except asyncio.CancelledError:
            for _, _, answer in taken:
                answer.cancel()
            raise
        for (_, _, answer), given in zip(taken, answers, strict=True):
            if not answer.done():
                answer.set_result(given)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def characters(body: str | None) -> int:
    """Give the length of a payload's text."""
    return 0 if body is None else len(body)


def _wrote_nothing(error: Exception) -> bool:
    """Tell whether a statement surely came to nothing: it was refused, or cancelled by the server's own word."""
    if not isinstance(error, LedgerError):
        return False
    return not isinstance(error, DatabaseUnavailable) or getattr(
        error.__cause__, "sqlstate", None
    ) in {CANCELED, *LOST}
