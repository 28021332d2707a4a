"""Calls that are made at the same time share a statement: one round trip and one commit for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any, Final, Generic, TypeVar

from ledger.errors import DatabaseUnavailable, LedgerError

MOST: Final = 1_000
Row = tuple[Any, ...]
T = TypeVar("T")


class Shared(Generic[T]):
    """Sends a call at once when none is on its way; what is asked for meanwhile goes together, as the next statement.

    `send` takes rows and gives a result for each, in their order. Each caller gets its own result. An error of a shared
    statement, which wrote nothing, is nobody's yet: its calls are made again one by one. Only when the server is away,
    and nobody knows what became of them, do they share the error.
    """

    def __init__(self, send: Callable[[Sequence[Row]], Awaitable[Sequence[T]]]) -> None:
        self._send = send
        self._waiting: list[tuple[Row, Hashable, asyncio.Future[T]]] = []
        self._busy = False
        self._sending: asyncio.Task[None] | None = None

    async def ask(self, row: Row, *, distinct: Hashable) -> T:
        """Make a call. Two that are the same in what is `distinct` follow one another, in the order of asking."""
        if self._busy:
            answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
            self._waiting.append((row, distinct, answer))
            return await answer
        self._busy = True
        try:
            return (await self._send([row]))[0]
        finally:
            if self._waiting:
                self._sending = asyncio.create_task(self._send_waiting())
            else:
                self._busy = False

    async def _send_waiting(self) -> None:
        try:
            while self._waiting:
                await self._answer(self._take())
                await asyncio.sleep(0)  # who got an answer may ask again at once: together with the others
        finally:
            self._busy = False

    def _take(self) -> list[tuple[Row, asyncio.Future[T]]]:
        taken: dict[Hashable, tuple[Row, asyncio.Future[T]]] = {}
        rest = []
        for row, distinct, answer in self._waiting:
            if answer.done():  # who asked was cancelled, before anything was sent
                continue
            if distinct in taken or len(taken) == MOST:
                rest.append((row, distinct, answer))
            else:
                taken[distinct] = (row, answer)
        self._waiting = rest
        return list(taken.values())

    async def _answer(self, taken: list[tuple[Row, asyncio.Future[T]]]) -> None:
        try:
            results = await self._send([row for row, _ in taken]) if taken else []
        except LedgerError as error:
            if len(taken) > 1 and not isinstance(error, DatabaseUnavailable):
                for one in taken:
                    await self._answer([one])
                return
            results = []
            for _, answer in taken:
                if not answer.done():
                    answer.set_exception(error)
        except asyncio.CancelledError:
            for _, answer in taken:
                answer.cancel()
            raise
        for (_, answer), result in zip(taken, results, strict=False):
            if not answer.done():
                answer.set_result(result)
