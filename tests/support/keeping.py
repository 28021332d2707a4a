"""Connections that programs in the process of a test leave, kept for the next program.

The first call of a new connection costs the server 10 ms, and tests call a program thousands of
times. A kept connection is like a new one but for what the server has read and compiled for it;
the programs of processes of their own open new ones.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeVar
from unittest.mock import patch

import asyncpg

from runfold.ledger.postgres import connections
from runfold.ledger.postgres.connections import FAILURES
from runfold.ledger.postgres.hosts import connect_to_any
from runfold.ledger.postgres.urls import parse

T = TypeVar("T")
AS_OPENED: Final = """
CLOSE ALL; UNLISTEN *; SET SESSION AUTHORIZATION DEFAULT; RESET ALL;
SELECT pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES
"""
"""All of DISCARD ALL but the prepared statements and plans, which are what is kept."""
_IS_SET: Final = "SELECT EXISTS (SELECT FROM pg_db_role_setting)"
_new_loop = asyncio.run


class Keeper:
    """Keeps connections by some URLs, and the loop that they belong to."""

    def __init__(self) -> None:
        self._idle: dict[tuple[object, ...], dict[str, list[Kept]]] = {}
        """By the place that a URL names, and by all that the connection was opened with."""
        self._runner = asyncio.Runner()
        self._lock = threading.Lock()
        self._thread = 0

    @contextmanager
    def connections(self, url: str) -> Iterator[None]:
        """Keep connections by this URL until the block ends; by another, each is a new one."""
        place = _place(parse(url).arguments(""))
        self._idle[place] = {}
        try:
            yield
        finally:
            for idle in self._idle.pop(place).values():
                for kept in idle:
                    kept.terminate()

    def count(self, url: str) -> int:
        """Return how many connections by the URL are kept."""
        return sum(map(len, self._idle[_place(parse(url).arguments(""))].values()))

    @contextmanager
    def programs(self) -> Iterator[None]:
        """Let `asyncio.run` of this thread serve one program after the other with one loop.

        What runs meanwhile in other threads has loops and connections of its own.
        """
        if not self._lock.acquire(blocking=False):
            yield
            return
        run = patch.object(asyncio, "run", self._run)
        lend = patch.object(connections, "connect_to_any", self._lend)
        self._thread = threading.get_ident()
        try:
            with run, lend:
                yield
        finally:
            self._lock.release()

    def _run(self, program: Coroutine[Any, Any, T]) -> T:
        if threading.get_ident() != self._thread:
            return _new_loop(program)
        return self._runner.run(_to_its_end(program))

    async def _lend(self, *words: Any, **arguments: Any) -> asyncpg.Connection[Any]:
        by_url = self._idle.get(_place(arguments))
        if by_url is None or asyncio.get_running_loop() is not self._runner.get_loop():
            return await connect_to_any(*words, **arguments)
        known = {name: value for name, value in arguments.items() if name != "loop"}
        idle = by_url.setdefault(repr([words, known]), [])
        while idle:
            kept = idle.pop()
            if await kept.is_like_new():
                return kept
            kept.terminate()
        opened = await connect_to_any(*words, **{**arguments, "connection_class": Kept})
        assert isinstance(opened, Kept)
        opened.idle = idle
        return opened


class Kept(asyncpg.Connection):
    """A connection that is put aside when it is closed, if nothing is wrong with it."""

    __slots__ = ("idle",)

    idle: list[Kept]

    def get_reset_query(self) -> str:
        """Return what brings the session back to what it was."""
        return AS_OPENED

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109  the driver's
        """Put the connection aside, unless it is closed or cannot be brought back."""
        try:
            await self.reset(timeout=timeout)
        except (*FAILURES, OSError):
            await super().close(timeout=timeout)
        else:
            self._cleanup()  # type: ignore[attr-defined]  # what its pool is told by
            self.idle.append(self)

    async def is_like_new(self) -> bool:
        """Whether the session goes on, and a new one would have the same settings."""
        try:
            return not await self.fetchval(_IS_SET)
        except (*FAILURES, OSError):
            return False


def _place(arguments: Mapping[str, object]) -> tuple[object, ...]:
    return tuple(str(arguments[name]) for name in ("host", "port", "user", "password", "database"))


async def _to_its_end(program: Coroutine[Any, Any, T]) -> T:
    try:
        return await program
    finally:
        await end_tasks()


async def end_tasks() -> None:
    """Cancel all other tasks of the loop, and those that begin when they are cancelled."""
    while left := asyncio.all_tasks() - {asyncio.current_task()}:
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


KEEPER: Final = Keeper()
"""That of this process."""
