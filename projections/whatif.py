"""What if another policy had been in force: recorded leases, judged by another TTL or limit.

The rules, all of them (docs/howto/time.md explains them with examples):

- A lease is silent from a beat (its start is the first) to the next beat, or to the event that
  closed it. A lease that the reaper closed stays silent until a refused write of its token, or for
  ever.
- A silence longer than the TTL would have been reaped; for certain when a reaper's sweep fits in
  the time beyond it.
- A longer beat keeps only those recorded beats that it would have sent. A shorter one could have
  cut a silence, by no more than the beats that were skipped while the recorded ones were still on
  time: the silence becomes a range.
- A run is judged up to the first thing that would have gone differently. What would have followed
  is not known.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from runfold.ledger import Ledger
from runfold.ledger.lifecycle import ATTEMPTS_EXHAUSTED
from runfold.ledger.months import FIRST_RUN, first_run_at
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.reading.permitted import RUN_RIGHTS, check_found
from runfold.ledger.validation import check_aware, check_duration, check_int
from runfold.projections.state.run_state import LEASED

MOST_SECONDS: Final = 3_600
JITTER: Final = 0.9
"""The share of its interval after which a beat counts as on time."""

_PAGE: Final = 5_000
_TYPES: Final = sorted(
    LEASED | {"run.submitted", "lease.heartbeat", "cancel.requested", "write.refused"}
)
_EVENTS: Final = """
SELECT event.run_id, event.version, event.type, event.actor, event.recorded_at, event.kind,
  event.max_attempts, event.attempt,
  event.worker_id, event.token, event.lease_until, event.error_code
FROM ledger.event AS event
WHERE event.project_id = $1 AND event.run_id >= $2 AND (event.run_id, event.version) > ($2, $3)
  AND event.type = ANY ($4::text[]) AND event.recorded_at <= $5
ORDER BY event.run_id, event.version LIMIT $6
"""


@dataclass(frozen=True, slots=True)
class Policy:
    """What to judge by; None leaves a value as it was recorded.

    `recorded_beat` is how often workers beat at the time.
    """

    ttl: timedelta | None = None
    beat: timedelta | None = None
    max_attempts: int | None = None
    recorded_beat: timedelta = timedelta(seconds=15)
    sweep: timedelta = timedelta(seconds=60)

    def __post_init__(self) -> None:
        """Check the values; raise InvalidValue."""
        for name in ("ttl", "beat", "recorded_beat", "sweep"):
            if (value := getattr(self, name)) is not None:
                check_duration(name, value, positive=True)
        if self.max_attempts is not None:
            check_int("max_attempts", self.max_attempts, least=1)

    def silence(self, gap: timedelta) -> tuple[timedelta, timedelta]:
        """Return how long, at least and at most, a worker would be silent in a recorded gap."""
        if self.beat is None or gap == timedelta.max:
            return gap, gap
        if self.beat > self.recorded_beat:
            return min(gap, self.beat), gap
        beats_between = math.ceil(self.recorded_beat / self.beat) - 1
        return max(gap - beats_between * self.beat, timedelta(0)), gap


@dataclass(frozen=True, slots=True)
class Verdict:
    """The first thing that would have gone differently in a run.

    `outcome` is `reaped` (pending again), `failed`, `cancelled`, or `spared` when the reaper came
    then and would not have; `certain` is False when the record allows both. `silent` is the longest
    the worker can have been silent, None without end; `recorded` is the event that closed the
    lease, None while it is open.
    """

    run_id: UUID
    kind: str
    worker_id: str
    attempt: int
    max_attempts: int
    outcome: str
    certain: bool
    at: datetime
    silent: timedelta | None
    recorded: str | None


@dataclass(frozen=True, slots=True)
class _Breach:
    at: datetime
    silent: timedelta


@dataclass(slots=True)
class _Lease:
    token: int
    attempt: int
    worker_id: str
    beat_at: datetime
    ttl: timedelta
    certain: _Breach | None = None
    possible: _Breach | None = None
    closed_by: str | None = None
    closed_at: datetime | None = None
    reaped: str | None = None
    """What the reaper made of it, if it came."""
    heard_again: bool = False


@dataclass(slots=True)
class _Run:
    run_id: UUID
    kind: str
    max_attempts: int
    leases: list[_Lease] = field(default_factory=list)
    cancelled_at: datetime | None = None

    @property
    def held(self) -> _Lease | None:
        return self.leases[-1] if self.leases and self.leases[-1].closed_at is None else None


class WhatIf:
    """Judges runs whose events are added in order of run and version; it holds one at a time."""

    def __init__(self, policy: Policy, now: datetime) -> None:
        self.policy, self.now = policy, now
        self.runs = self.leases = self.beats = 0
        self.silences: Counter[int] = Counter()
        """How many silences had this many whole seconds; the last entry: MOST_SECONDS and more."""
        self._run: _Run | None = None

    def add(self, event: Mapping[str, Any]) -> Verdict | None:
        """Take the next event; if it begins a new run, return the verdict on the one before."""
        verdict = None
        if self._run is None or self._run.run_id != event["run_id"]:
            verdict = self.close()
            self._run = _Run(event["run_id"], event["kind"] or "", event["max_attempts"] or 0)
            self.runs += 1
        self._follow(self._run, event)
        return verdict

    def close(self) -> Verdict | None:
        """Return the verdict on the last run."""
        run, self._run = self._run, None
        if run is None:
            return None
        for lease in run.leases:
            if lease.closed_at is None:
                self._hear(lease, self.now)
            elif lease.reaped is not None and not lease.heard_again:
                self._silent(lease, timedelta.max)
        verdicts = list(self._verdicts(run))
        return next(
            (verdict for verdict in verdicts if verdict.certain), verdicts[0] if verdicts else None
        )

    @property
    def unfinished(self) -> UUID | None:
        """The run that it is at; None once it is closed."""
        return None if self._run is None else self._run.run_id

    def _follow(self, run: _Run, event: Mapping[str, Any]) -> None:
        type_, at, held = event["type"], event["recorded_at"], run.held
        match type_:
            case "lease.acquired":
                ttl = event["lease_until"] - at
                run.leases.append(
                    _Lease(event["token"], event["attempt"], event["worker_id"], at, ttl)
                )
                self.leases += 1
            case "lease.heartbeat" if held is not None:
                self.beats += 1
                if self.policy.beat is None or at - held.beat_at >= JITTER * self.policy.beat:
                    self._hear(held, at)
                    held.ttl = event["lease_until"] - at
            case "write.refused":
                for lease in run.leases:
                    if (
                        lease.token == event["token"]
                        and lease.reaped is not None
                        and not lease.heard_again
                    ):
                        self._hear(lease, at)
                        lease.heard_again = True
            case "cancel.requested":
                run.cancelled_at = run.cancelled_at or at
            case _ if type_ in LEASED and held is not None and event["token"] is None:
                held.closed_by, held.closed_at, held.reaped = type_, at, _reaped(event)
                if held.reaped is None:
                    self._hear(held, at)

    def _hear(self, lease: _Lease, at: datetime) -> None:
        self._silent(lease, at - lease.beat_at)
        lease.beat_at = at

    def _silent(self, lease: _Lease, gap: timedelta) -> None:
        ttl = self.policy.ttl or lease.ttl
        least, most = self.policy.silence(gap)
        self.silences[min(int(gap.total_seconds()), MOST_SECONDS)] += 1
        breach = _Breach(lease.beat_at + ttl, most)
        if least == timedelta.max or least > ttl + self.policy.sweep:
            lease.certain = lease.certain or breach
        elif most > ttl:
            lease.possible = lease.possible or breach

    def _verdicts(self, run: _Run) -> Iterator[Verdict]:
        limit = self.policy.max_attempts or run.max_attempts
        for lease in run.leases:
            breach = lease.certain or lease.possible
            if breach is not None:
                outcome = "failed" if lease.attempt >= limit else "reaped"
                if run.cancelled_at is not None and run.cancelled_at < breach.at:
                    outcome = "cancelled"
                if outcome == lease.reaped:
                    continue
                silent = None if breach.silent == timedelta.max else breach.silent
                certain, at = lease.certain is not None, breach.at
            elif lease.reaped is not None and lease.closed_at is not None:
                outcome, certain, at, silent = "spared", True, lease.closed_at, None
            elif (
                lease.closed_by == "run.retried"
                and lease.closed_at is not None
                and lease.attempt >= limit
            ):
                outcome, certain, at, silent = "failed", True, lease.closed_at, None
            else:
                continue
            yield Verdict(
                run.run_id,
                run.kind,
                lease.worker_id,
                lease.attempt,
                limit,
                outcome,
                certain,
                at,
                silent,
                lease.closed_by,
            )


def _reaped(event: Mapping[str, Any]) -> str | None:
    if event["type"] == "lease.expired":
        return "reaped"
    if event["error_code"] == ATTEMPTS_EXHAUSTED:
        return "failed"
    return "cancelled" if event["type"] == "run.cancelled" and event["actor"] == "reaper" else None


async def judge(
    ledger: Ledger, what_if: WhatIf, since: datetime | None = None, *, most: int | None = None
) -> AsyncIterator[Verdict]:
    """Yield a verdict for each run that would have gone differently, in the order of submission.

    Events are read page by page and up to the moment of `what_if`: no snapshot is held meanwhile.
    With `most` it ends once that many events were read, before the verdict on the `unfinished` run.
    Raises InvalidValue for a time without a zone, AccessDenied and DatabaseUnavailable.
    """
    place, read = (_first_run(since), 0), 0
    while True:
        rows = await fetch(
            ledger.pool, _EVENTS, ledger.project_id, *place, _TYPES, what_if.now, _PAGE
        )
        await check_found(rows, ledger.pool, ledger.project_id, *RUN_RIGHTS)
        for row in rows:
            if (verdict := what_if.add(row)) is not None:
                yield verdict
        read += len(rows)
        if len(rows) < _PAGE:
            break
        if most is not None and read >= most:
            return
        place = (rows[-1]["run_id"], rows[-1]["version"])
    if (verdict := what_if.close()) is not None:
        yield verdict


def _first_run(since: datetime | None) -> UUID:
    """Return the smallest id of a run submitted at an instant or later; raises InvalidValue."""
    return FIRST_RUN if since is None else first_run_at(check_aware("since", since))
