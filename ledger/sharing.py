"""Calls that are made at the same time share a statement: one round trip and one commit for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any, Final, Generic, TypeAlias, TypeVar

from ledger.errors import DatabaseUnavailable, LedgerError

MOST: Final = 1_000
Row: TypeAlias = tuple[Any, ...]
Q = TypeVar("Q")
A = TypeVar("A")


class Shared(Generic[Q, A]):
    """Sends a question at once when none is on its way; what is asked meanwhile goes together, as the next statement.

    `send` gives an answer for each question, in their order. With `linger`, seconds, the first of a burst waits for the
    others. A refused statement wrote nothing, so its questions are asked again one by one, and only who was to blame gets
    the error. When the server is away nobody knows what became of them, and all get that error.
    """

    def __init__(self, send: Callable[[Sequence[Q]], Awaitable[Sequence[A]]], *, linger: float | None = None) -> None:
        self._send, self._linger = send, linger
        self._waiting: list[tuple[Q, Hashable, asyncio.Future[A]]] = []
        self._busy = False
        self._sending: asyncio.Task[None] | None = None
        """Kept here: the loop itself keeps no task alive."""

    async def ask(self, question: Q, *, distinct: Hashable) -> A:
        """Get an answer. Questions that are the same in what is `distinct` follow one another, in the order asked."""
        if not self._busy and self._linger is None:
            return await self._ask_alone(question)
        answer: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, distinct, answer))
        if not self._busy:
            self._busy = True
            self._sending = asyncio.create_task(self._send_waiting())
        return await answer

    async def _ask_alone(self, question: Q) -> A:
        self._busy = True
        try:
            return (await self._send([question]))[0]
        finally:
            if self._waiting:
                self._sending = asyncio.create_task(self._send_waiting())
            else:
                self._busy = False

    async def _send_waiting(self) -> None:
        try:
            while self._waiting:
                # Who got an answer may ask again at once: together with the others.
                await asyncio.sleep(self._linger or 0)
                await self._answer(self._take())
        finally:
            self._busy = False

    def _take(self) -> list[tuple[Q, asyncio.Future[A]]]:
        taken: dict[Hashable, tuple[Q, asyncio.Future[A]]] = {}
        rest = []
        for question, distinct, answer in self._waiting:
            if answer.done():  # who asked was cancelled, before anything was sent
                continue
            if distinct in taken or len(taken) == MOST:
                rest.append((question, distinct, answer))
            else:
                taken[distinct] = (question, answer)
        self._waiting = rest
        return list(taken.values())

    async def _answer(self, taken: list[tuple[Q, asyncio.Future[A]]]) -> None:
        if not taken:
            return
        try:
            answers = await self._send([question for question, _ in taken])
        except Exception as error:
            if len(taken) > 1 and isinstance(error, LedgerError) and not isinstance(error, DatabaseUnavailable):
                for one in taken:
                    await self._answer([one])
                return
            for _, answer in taken:
                if not answer.done():
                    answer.set_exception(error)
            return
        except asyncio.CancelledError:
            for _, answer in taken:
                answer.cancel()
            raise
        for (_, answer), given in zip(taken, answers, strict=True):
            if not answer.done():
                answer.set_result(given)
