"""The order of a measurement: every part of every system once, then again while there is time."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from benchmarks.peers.sizes import Size
from benchmarks.peers.workloads import Pace, System

LATE: Final = "left out: the time was over"
PATIENCE: Final = 1.5
"""How much more than its share of the time a system may take: rather than leave a part out."""
LEAST_SECONDS: Final = 120
"""What the last systems have, too, when those before them took theirs."""
Figures = dict[str, Any]


class Rounds:
    """Measures systems on one server, in rounds that go forth and back."""

    def __init__(self, url: str, names: Sequence[str], size: Size, end: float) -> None:
        self._url, self._names, self._size, self._end = url, names, size, end
        self._paces = {name: Pace() for name in names}
        self._took = defaultdict[str, float](float)
        """The seconds of each part, of all systems together."""

    async def crashes(self) -> dict[str, Figures]:
        """Kill a worker of each system; each waits for its timeouts beside the others."""
        turn = asyncio.Lock()
        crashes = await asyncio.gather(*(self._crashed(name, turn) for name in self._names))
        return dict(zip(self._names, crashes, strict=True))

    async def part(self, part: str) -> dict[str, Figures]:
        """Measure one part of each system, once."""
        figures: dict[str, Figures] = {}
        for name in self._names:
            async with self._system(name, "part") as system:
                await system.begin()
                figures[name] = await system.measure(part)
        return figures

    async def measure(self, figures: dict[str, list[Figures]]) -> int:
        """Add the figures of each round; return how many rounds were begun.

        The first has every part; what a system did not come to, although it took more than its
        share of the time, is named.
        A further round has the parts, in their order, that will be over in time.
        """
        for number in range(self._size.rounds):
            if number and not (parts := self._again()):
                return number
            order = self._names if number % 2 == 0 else self._names[::-1]
            for place, name in enumerate(order):
                share = max(self._end - time.monotonic(), 0) / (len(order) - place)
                patience = float("inf") if number else max(share * PATIENCE, LEAST_SECONDS)
                late = time.monotonic() + patience
                measured = await self._measured(name, number, parts if number else None, late)
                figures[name].append(measured)
        return self._size.rounds

    def _again(self) -> list[str]:
        parts, left = list[str](), self._end - time.monotonic() - self._took["begin"]
        for part, took in self._took.items():
            if part != "begin" and took < left:
                parts.append(part)
                left -= took
        return parts

    async def _measured(
        self, name: str, number: int, parts: list[str] | None, late: float
    ) -> Figures:
        """Measure one system; after a part that failed, which may leave jobs, begin anew."""
        figures: Figures = {}
        left: list[str] | None = parts
        while left is None or left:
            began = time.monotonic()
            async with self._system(name, str(number)) as system:
                try:
                    await system.begin()
                except Exception as error:
                    return {**figures, "skipped": f"cannot be run: {_text(error)}"}
                figures |= {trait: system.traits[trait] for trait in ("keeps", "gives_up")}
                self._took["begin"] += (time.monotonic() - began) * (number == 0)
                left = list(system.parts) if left is None else left
                left = await self._some(system, left, figures, late, is_first=number == 0)
        print(name, number, json.dumps(figures), flush=True)
        return figures

    async def _some(
        self, system: System, parts: list[str], figures: Figures, late: float, *, is_first: bool
    ) -> list[str]:
        """Measure until a part fails, and return those that are left."""
        for place, part in enumerate(parts):
            began = time.monotonic()
            if began > late:
                figures[part] = {"failed": LATE}
                continue
            figures[part] = await system.measure(part)
            self._took[part] += (time.monotonic() - began) * is_first
            if isinstance(figures[part], dict) and "failed" in figures[part]:
                return parts[place + 1 :]
        return []

    async def _crashed(self, name: str, turn: asyncio.Lock) -> Figures:
        async with self._system(name, "crash") as system:
            try:
                figures = await system.crash(turn)
            except Exception as error:
                figures = {"failed": _text(error)}
        print(name, "crash", figures, file=sys.stderr, flush=True)
        return figures

    @asynccontextmanager
    async def _system(self, name: str, label: str) -> AsyncIterator[System]:
        """Make a database for one system, and drop it at the end."""
        database = f"bench_{name}_{label}"
        server = await asyncpg.connect(self._url)
        await server.execute(f"CREATE DATABASE {database}")
        own = urlunsplit(urlsplit(self._url)._replace(path=f"/{database}"))
        connection = await asyncpg.connect(own)
        try:
            with tempfile.TemporaryDirectory(prefix="runfold-bench-first-") as folder:
                yield System(name, own, connection, self._size, Path(folder), self._paces[name])
        finally:
            await connection.close()
            await server.execute(f"DROP DATABASE {database} WITH (FORCE)")
            await server.execute("CHECKPOINT")
            await server.close()


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
