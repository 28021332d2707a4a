"""The timeline of a run: attempts with their leases and beats, waits, steps, refusals (pure).

Places are percentages of the window, so that the drawing fits any width without a script.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from runfold.console.shared.plain import number_of
from runfold.ledger.lifecycle import TERMINAL

BUCKETS: Final = 240
"""Marks of one style in a lane, at most; marks that are nearer to each other become one."""
TICKS: Final = 4
_LEAST: Final = timedelta(milliseconds=20)
_GAP_OF_LEASE: Final = 0.5
"""A silence longer than this part of the lease is drawn as a gap."""
_WAIT_PART: Final = 0.3
"""The last wait of a run is drawn at most this long, as a part of all that came before it."""
_ENDED: Final = frozenset(state.value for state in TERMINAL)
_WAITS: Final = {"tool.requested": "tool", "approval.requested": "approval"}
_ANSWERS: Final = frozenset(
    {"tool.completed", "tool.failed", "approval.granted", "approval.lapsed", "approval.rejected"}
    | {"approval.expired"}
)
_BAD: Final = frozenset(
    {"step.failed", "tool.failed", "approval.rejected", "approval.expired", "lease.expired"}
    | {"run.failed", "run.timed_out", "run.retried", "write.refused"}
)


@dataclass(frozen=True, slots=True)
class Fact:
    """The facts of an event that the timeline needs."""

    version: int
    type: str
    recorded_at: datetime
    state: str | None = None
    name: str | None = None
    attempt: int | None = None
    worker_id: str | None = None
    token: int | None = None
    lease_until: datetime | None = None
    wait_until: datetime | None = None
    late_ms: int | None = None
    error_code: str | None = None
    compensates: int | None = None
    actor: str = ""
    cost_usd: Decimal | None = None
    step_count: int | None = None


@dataclass(frozen=True, slots=True)
class Bar:
    """A span of time: `left` and `width` in percent; `version` is the event it leads to.

    `style` is the class that the style sheet knows.
    """

    left: float
    width: float
    style: str
    title: str
    version: int


@dataclass(slots=True)
class Mark:
    """A moment, or several that lie too near to tell apart."""

    left: float
    style: str
    title: str
    version: int
    count: int = 1


@dataclass(slots=True)
class Lane:
    """One row of the timeline."""

    label: str
    detail: str = ""
    bars: list[Bar] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class Timeline:
    """A run as it went, from `start` to `end`."""

    start: datetime
    end: datetime
    lanes: Sequence[Lane]
    ticks: Sequence[tuple[float, datetime]]
    events: int


@dataclass(slots=True)
class _Span:
    """A lease or a wait: the event that began it, and its end if it has ended."""

    begun: Fact
    end: datetime | None = None
    ended_by: Fact | None = None
    until: datetime | None = None
    beats: list[Fact] = field(default_factory=list)


def timeline(facts: Sequence[Fact], now: datetime, attempt: int | None = None) -> Timeline:
    """Return the timeline of a run's events; of one attempt, if it is named."""
    leases, waits = _spans(facts)
    chosen = [lease for lease in leases if lease.begun.attempt == attempt]
    held = bool(leases) and leases[-1].end is None
    start, end = _window(facts, chosen, now, held=held)
    scale = _Scale(start, end)
    lanes = [_attempt(number, leases, scale) for number in _attempts(leases)]
    for awaited in ("tool", "approval"):
        lanes += _wait_lanes(awaited, waits, scale)
    rest = [fact for fact in facts if not fact.type.startswith(("lease.", "tool.", "approval."))]
    lanes += _mark_lanes(rest, scale)
    shown = [lane for lane in lanes if lane.bars or lane.marks]
    ticks = [(100 * n / TICKS, start + (end - start) * (n / TICKS)) for n in range(TICKS + 1)]
    return Timeline(start, end, shown, ticks, len(facts))


def _spans(facts: Iterable[Fact]) -> tuple[list[_Span], list[_Span]]:
    """Return the leases and the waits of a history."""
    leases: list[_Span] = []
    waits: list[_Span] = []
    for fact in facts:
        held = leases[-1] if leases and leases[-1].end is None else None
        if fact.type == "lease.acquired":
            _end(held, fact)
            leases.append(_Span(fact, until=fact.lease_until))
        elif held is not None:
            _in_lease(held, fact)
        if waits and waits[-1].end is None and (fact.type in _ANSWERS or fact.state is not None):
            _end(waits[-1], fact)
        if fact.type in _WAITS:
            waits.append(_Span(fact, until=fact.wait_until))
    return leases, waits


def _in_lease(held: _Span, fact: Fact) -> None:
    if fact.type == "lease.heartbeat":
        held.beats.append(fact)
        held.until = fact.lease_until
    elif fact.lease_until is not None:
        held.until = fact.lease_until
    let_go = fact.state in {"pending", *_ENDED}
    parked = fact.type in _WAITS and fact.token is None
    if let_go or parked or fact.type in {"lease.released", "lease.expired", "run.retried"}:
        _end(held, fact)


def _end(span: _Span | None, fact: Fact) -> None:
    if span is not None and span.end is None:
        span.end, span.ended_by = fact.recorded_at, fact


def _window(
    facts: Sequence[Fact], chosen: Sequence[_Span], now: datetime, *, held: bool
) -> tuple[datetime, datetime]:
    """Return the first and the last instant that are drawn."""
    if chosen:
        start, end = chosen[0].begun.recorded_at, chosen[-1].end or now
    else:
        start, end = facts[0].recorded_at, facts[-1].recorded_at
        if not any(fact.state in _ENDED for fact in reversed(facts)):
            # Nobody works on a run that waits: the wait must not crowd out what was done.
            crowding = end + max((end - start) * _WAIT_PART, timedelta(seconds=1))
            end = max(end, now if held else min(now, crowding))
    spare = max(end - start, _LEAST) * 0.01
    return start - spare, end + spare


class _Scale:
    """From instants to percentages of the window."""

    def __init__(self, start: datetime, end: datetime) -> None:
        self._start, self._end = start, end
        self._whole = (end - start).total_seconds()

    def at(self, instant: datetime) -> float:
        return round(100 * (instant - self._start).total_seconds() / self._whole, 3)

    def holds(self, instant: datetime) -> bool:
        return self._start <= instant <= self._end

    def bar(self, begun: datetime, end: datetime | None, **facts: object) -> Bar | None:
        """Return the part of a span that lies in the window."""
        left = max(self.at(begun), 0.0)
        right = min(self.at(end or self._end), 100.0)
        if right < 0 or left > 100:  # noqa: PLR2004  percent
            return None
        return Bar(left=left, width=max(right - left, 0.15), **facts)  # type: ignore[arg-type]


def _attempts(leases: Sequence[_Span]) -> list[int]:
    return sorted({lease.begun.attempt or 0 for lease in leases})


def _attempt(number: int, leases: Sequence[_Span], scale: _Scale) -> Lane:
    own = [lease for lease in leases if (lease.begun.attempt or 0) == number]
    workers = list(dict.fromkeys(lease.begun.worker_id or "" for lease in own))
    lane = Lane(f"Attempt {number}", ", ".join(workers), attempt=number)
    for lease in own:
        _draw_lease(lane, lease, scale)
    return lane


def _draw_lease(lane: Lane, lease: _Span, scale: _Scale) -> None:
    begun, by = lease.begun, lease.ended_by
    how = f"{by.type} (#{by.version})" if by is not None else "held now"
    style = "lost" if by is not None and by.type in _BAD else "held"
    heard = number_of(len(lease.beats), "heartbeat")
    title = f"lease {begun.version} of {begun.worker_id}: {how}, {heard}"
    # A lease that was found expired had ended when it ran out, not when somebody noticed.
    end = lease.end
    expired = by is not None and by.type == "lease.expired" and lease.until is not None
    if expired and lease.until is not None and end is not None and lease.until < end:
        silent = scale.bar(
            lease.until, end, style="expired", version=by.version if by else begun.version,
            title=f"lease {begun.version} had run out; nobody held the run",
        )  # fmt: skip
        lane.bars += [silent] if silent else []
        end = lease.until
    bar = scale.bar(begun.recorded_at, end, style=style, title=title, version=begun.version)
    lane.bars += [bar] if bar else []
    lane.bars += _gaps(lease, end, scale)
    beats = [(beat, "late" if beat.late_ms else "beat", "heartbeat") for beat in lease.beats]
    lane.marks += _marks(beats, scale)
    if by is not None and scale.holds(by.recorded_at):
        lane.marks.append(_mark(by, scale, "bad" if by.type in _BAD else "end"))


def _gaps(lease: _Span, end: datetime | None, scale: _Scale) -> list[Bar]:
    """Return the silences of a holder that were long for its lease."""
    first = lease.begun
    if first.lease_until is None:
        return []
    long = (first.lease_until - first.recorded_at) * _GAP_OF_LEASE
    signs = [first, *lease.beats]
    ends = [*(beat.recorded_at for beat in lease.beats), end]
    gaps: list[Bar] = []
    for sign, until in zip(signs, ends, strict=True):
        if until is not None and until - sign.recorded_at > long:
            seconds = (until - sign.recorded_at).total_seconds()
            bar = scale.bar(
                sign.recorded_at, until, style="gap", version=sign.version,
                title=f"no heartbeat for {seconds:.1f} s",
            )  # fmt: skip
            gaps += [bar] if bar else []
    return gaps[:BUCKETS]


def _wait_lanes(awaited: str, waits: Sequence[_Span], scale: _Scale) -> list[Lane]:
    """Return the waits for a tool or an approval, a lane for each name, up to a few."""
    lanes: dict[str, Lane] = {}
    for wait in (each for each in waits if _WAITS[each.begun.type] == awaited):
        name = wait.begun.name or awaited
        label = name if name in lanes or len(lanes) < 6 else "others"  # noqa: PLR2004  what fits
        lane = lanes.setdefault(label, Lane(awaited.capitalize(), label))
        by = wait.ended_by
        how = f"{by.type} by {by.actor}" if by is not None else "waits"
        bad = by is not None and by.type in _BAD
        bar = scale.bar(
            wait.begun.recorded_at, wait.end, style=f"{awaited}{' bad' if bad else ''}",
            title=f"{name}: {how}", version=wait.begun.version,
        )  # fmt: skip
        if bar is not None and len(lane.bars) < 2 * BUCKETS:
            lane.bars.append(bar)
    return list(lanes.values())


def _mark_lanes(facts: Sequence[Fact], scale: _Scale) -> list[Lane]:
    lanes = {
        "Steps": Lane("Steps"),
        "Refused": Lane("Refused writes"),
        "Run": Lane("Run"),
        "Notes": Lane("Notes and others"),
    }
    by_lane: dict[str, list[tuple[Fact, str, str]]] = {label: [] for label in lanes}
    for fact in facts:
        by_lane[_lane_of(fact)].append((fact, _style_of(fact), fact.name or fact.type))
    for label, lane in lanes.items():
        lane.marks += _marks(by_lane[label], scale)
    return list(lanes.values())


def _lane_of(fact: Fact) -> str:
    family = fact.type.partition(".")[0]
    if fact.type == "write.refused":
        return "Refused"
    return {"step": "Steps", "run": "Run", "cancel": "Run"}.get(family, "Notes")


def _style_of(fact: Fact) -> str:
    if fact.type in _BAD:
        return "bad"
    return "step" if fact.type == "step.completed" else "end"


def _marks(drawn: Iterable[tuple[Fact, str, str]], scale: _Scale) -> list[Mark]:
    """Return the marks of events; events of one style that are too near share one."""
    placed: dict[tuple[str, int], Mark] = {}
    for fact, style, label in drawn:
        if not scale.holds(fact.recorded_at):
            continue
        left = scale.at(fact.recorded_at)
        spot = (style, int(left * BUCKETS / 100))
        mark = placed.get(spot)
        if mark is None:
            placed[spot] = Mark(left, style, f"{label} #{fact.version}", fact.version)
        else:
            mark.count += 1
            mark.title = f"{mark.count} events from #{mark.version} to #{fact.version}"
    return list(placed.values())


def _mark(fact: Fact, scale: _Scale, style: str) -> Mark:
    undoes = f", compensates #{fact.compensates}" if fact.compensates else ""
    code = f", {fact.error_code}" if fact.error_code else ""
    return Mark(
        scale.at(fact.recorded_at),
        style,
        f"#{fact.version} {fact.type}{code}{undoes}",
        fact.version,
    )
