"""What if another policy had been in force: the recorded beats, judged by the sliders' values."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from fastapi import Query
from fastapi.responses import Response

from runfold.console.shared.plain import number_of
from runfold.console.web.pages.viewing import ReadViewer, page, router
from runfold.ledger.postgres.clock import ledger_now
from runfold.ledger.validation import check_instant
from runfold.projections.whatif import MOST_SECONDS, Policy, Verdict, WhatIf, judge

EVENTS: Final = 20_000
"""Events that one page reads; a link goes on after them."""
MOST: Final = 100
"""Verdicts on the page."""
BARS: Final = 40
_DAY: Final = timedelta(days=1)
Seconds = Annotated[float, Query(ge=0, le=MOST_SECONDS)]
Attempts = Annotated[int, Query(ge=0, le=1_000)]
pages = router()


@dataclass(frozen=True, slots=True)
class Plot:
    """How long workers were silent: bars of `seconds` each, heights and the line in percent."""

    seconds: float
    bars: list[tuple[float, float, str]]
    """The left end, the height and the title of each."""
    line: float
    """Where the lease ends."""


@page(pages, "/p/{project}/whatif")
async def whatif(
    viewer: ReadViewer,
    *,
    ttl: Seconds = 0,
    heartbeat: Seconds = 0,
    max_attempts: Attempts = 0,
    reaper: Seconds = 0,
    since: datetime | None = None,
) -> Response:
    """Judge the recorded leases under the policy of the sliders: 0 leaves a value as recorded."""
    settings = viewer.ledger.settings
    policy = Policy(
        _span(ttl),
        _span(heartbeat),
        max_attempts or None,
        recorded_beat=timedelta(seconds=settings.heartbeat_seconds),
        sweep=timedelta(seconds=reaper or settings.reaper_seconds),
    )
    present = await ledger_now(viewer.ledger.pool)
    start, judged = _start(since, present), WhatIf(policy, present)
    counts: Counter[str] = Counter()
    verdicts: list[Verdict] = []
    async for verdict in judge(viewer.ledger, judged, start, most=EVENTS):
        counts[verdict.outcome if verdict.certain else f"possibly {verdict.outcome}"] += 1
        if len(verdicts) < MOST:
            verdicts.append(verdict)
    sliders = {"ttl": ttl, "heartbeat": heartbeat, "max_attempts": max_attempts, "reaper": reaper}
    return viewer.page(
        "whatif.html",
        {
            "policy": sliders, "since": start, "runs": judged.runs, "leases": judged.leases,
            "beats": judged.beats, "outcomes": counts, "verdicts": verdicts,
            "goes_on_at": _onward(judged, start),
        },
        plot=plot(judged.silences, ttl or settings.lease_ttl_seconds),
        most=MOST,
    )  # fmt: skip


def _onward(judged: WhatIf, start: datetime) -> datetime | None:
    """Return the time from which the next page judges; None if this one came to the end."""
    if judged.unfinished is None:
        return None
    submitted = datetime.fromtimestamp((judged.unfinished.int >> 80) / 1000, UTC)
    return max(submitted, start + timedelta(milliseconds=1))


def plot(silences: Counter[int], ttl: float) -> Plot:
    """Return the plot of silences and the end of a lease; the last bar has all longer silences."""
    width = max(2 * ttl / BARS, 1.0)
    heights = [0] * BARS
    for seconds, number in silences.items():
        heights[min(int(seconds / width), BARS - 1)] += number
    most = max(heights, default=0) or 1
    bars = [
        (100 * place / BARS, 100 * number / most, _told(place, width, number))
        for place, number in enumerate(heights)
        if number
    ]
    return Plot(width, bars, 100 * ttl / (width * BARS))


def _told(place: int, width: float, number: int) -> str:
    begun = f"{place * width:g} s"
    length = f"{begun} or longer" if place == BARS - 1 else f"{begun} to {(place + 1) * width:g} s"
    return f"{number_of(number, 'silence')} of {length}"


def _span(seconds: float) -> timedelta | None:
    return timedelta(seconds=seconds) if seconds else None


def _start(since: datetime | None, now: datetime) -> datetime:
    if since is None:
        return now - _DAY
    return check_instant("since", since if since.tzinfo else since.replace(tzinfo=UTC))
