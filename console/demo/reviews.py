"""The runs of `runfold demo --web`: reviews of files, a few at a time, some of which need approval.

The files and the tool are real; the pauses are there so that a person can follow.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any, Final

from runfold.console.demo.measure import call_tool, measure, price, sources, tool
from runfold.console.demo.story import DemoFailed, play_in
from runfold.console.shared.plain import number_of
from runfold.ledger import Ledger, State
from runfold.ledger.postgres.opening import Database
from runfold.ledger.settings import Settings
from runfold.workers import Backoff, Context, handler

HANDLERS: Final = "runfold.console.demo.reviews"
"""This module, by the name that `runfold worker` takes."""
SETTINGS: Final = {"RUNFOLD_LEASE_TTL_SECONDS": "6", "RUNFOLD_HEARTBEAT_SECONDS": "1"}
"""Settings of the processes: short leases, so that a person sees one end."""
STORY_FILES: Final = 60
FILES: Final = 200
EVERY_SECONDS: Final = 2.5
PAUSE_SECONDS: Final = (0.5, 3)
"""The shortest and the longest pause of a review; each pause is a random one between them."""
MOST_ASKING: Final = 3
"""How many reviews may wait for a person at a time."""
FLAKY: Final = 7
"""Of so many reviews, one fails in its first attempt."""
DAY: Final = 86_400


class ToolBusy(Exception):
    """The tool has no answer now."""


@handler("review", retry=Backoff(first=1))
async def review(ctx: Context, path: str) -> dict[str, Any]:
    """Measure a file, ask a tool about it, and a person if it is large."""
    measures = await ctx.step("measure", _measured, path)
    if ctx.attempt == 1 and measures["bytes"] % FLAKY == 0:
        raise ToolBusy("the demo lets the first attempt of one review in seven fail")
    words, names = tool()
    counted = await ctx.tool(words[0], _counted, path, words, names)
    ctx.cost(price(counted["bytes"]))
    if measures["exceeds"]:
        name = Path(path).name
        await ctx.approval(
            f"Accept {name}, with {number_of(measures['lines'], 'line')}?",
            show=measures,
            timeout=DAY,
        )
    return {**measures, **await ctx.step("summarize", _summarized, path)}


async def _measured(path: str) -> dict[str, Any]:
    await _pause()
    measured = await asyncio.to_thread(measure, Path(path))
    return {**measured.shown(), "exceeds": measured.is_large}


async def _counted(path: str, words: list[str], names: list[str]) -> dict[str, int]:
    await _pause()
    return await asyncio.to_thread(call_tool, words, names, Path(path))


async def _summarized(path: str) -> dict[str, str]:
    await _pause()
    return {"summary": f"{Path(path).name} is reviewed"}


async def _pause() -> None:
    await asyncio.sleep(random.uniform(*PAUSE_SECONDS))  # noqa: S311  nothing secret depends on it


async def play_and_review(database: Database, project: str) -> None:
    """Play the demo's story in the project, then submit reviews for as long as this runs."""
    try:
        await play_in(database, project, STORY_FILES, _say_nothing, _say_nothing)
    except DemoFailed:
        return
    await submit_reviews(Ledger(database.pool, project, Settings.load()))


async def submit_reviews(ledger: Ledger) -> None:
    """Submit reviews without end, first that of a large file; few of them wait for a person."""
    for path, is_large in await asyncio.to_thread(_files_to_review):
        asking = await ledger.runs(state=State.WAITING_APPROVAL, limit=MOST_ASKING)
        if is_large and len(asking) == MOST_ASKING:
            continue
        await ledger.submit("review", path, tags=["large"] if is_large else [])
        await asyncio.sleep(EVERY_SECONDS)


def _files_to_review() -> Iterator[tuple[str, bool]]:
    """Yield files without end, each with whether a person must look at it; a large one first."""
    measured = [(str(path), measure(path).is_large) for path, _ in sources(FILES)]
    large = [file for file in measured if file[1]]
    return cycle([*large[:1], *measured])


def _say_nothing(*_: object) -> None:
    """Do nothing: the pages show it."""
