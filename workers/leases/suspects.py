"""Runs a suspected crasher alone in its process; all other runs work beside each other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


class Gate:
    """Lets one run work alone: the others are given back, and it waits until none is held.

    A run works alone if its worker died under it and it has no attempt left to lose, so that a run
    that kills its worker every time takes no other run with it.
    """

    def __init__(self, held: Callable[[], int]) -> None:
        """Start open; `held` counts the leases for which the process still has to write."""
        self.is_closed = False
        """A run works alone, or waits to."""
        self._held, self._changed = held, asyncio.Event()

    def look(self) -> None:
        """Look again how many leases are held."""
        self._changed.set()

    async def alone(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do some work alone; the gate must be open."""
        self.is_closed = True
        try:
            while self._held() > 1:
                self._changed.clear()
                await self._changed.wait()
            return await work()
        finally:
            self.is_closed = False
