"""The attempts of a run: who held it, for how long, what it cost, and how it ended (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from runfold.console.web.pages.timeline import Fact
from runfold.ledger.lifecycle import TERMINAL
from runfold.projections.state.run_state import LEASED

_ENDED: Final = frozenset(state.value for state in TERMINAL) | {"pending"}


@dataclass(slots=True)
class Attempt:
    """One attempt: `leases` counts its leases; `held` is the time under a lease.

    `ended_by` is the type of the event that ended it; None while it goes on.
    """

    number: int
    worker_id: str
    begun_at: datetime
    leases: int = 0
    beats: int = 0
    held: timedelta = timedelta(0)
    cost_usd: Decimal = Decimal(0)
    step_count: int = 0
    ended_at: datetime | None = None
    ended_by: str | None = None
    error_code: str | None = None
    version: int = 0
    """The version of its last event."""


def attempts(facts: Sequence[Fact], now: datetime) -> list[Attempt]:
    """Return the attempts of a run by its events, the first one first."""
    by_number: dict[int, Attempt] = {}
    current: Attempt | None = None
    since: datetime | None = None
    for fact in facts:
        if fact.type == "lease.acquired" and fact.attempt is not None:
            current = by_number.setdefault(
                fact.attempt, Attempt(fact.attempt, fact.worker_id or "", fact.recorded_at)
            )
            current.worker_id, since = fact.worker_id or "", fact.recorded_at
            current.leases += 1
        if current is None:
            continue
        _add(current, fact)
        if since is not None and _closes(fact):
            current.held += fact.recorded_at - since
            since = None
    if current is not None and since is not None:
        current.held += max(now - since, timedelta(0))
    return list(by_number.values())


def _add(attempt: Attempt, fact: Fact) -> None:
    if fact.type == "write.refused":  # of a lease that was lost: no part of this attempt
        return
    attempt.beats += fact.type == "lease.heartbeat"
    attempt.cost_usd += fact.cost_usd or 0
    attempt.step_count += fact.step_count or 0
    if fact.state in _ENDED:
        attempt.ended_at, attempt.ended_by = fact.recorded_at, fact.type
        attempt.error_code, attempt.version = fact.error_code, fact.version
    elif fact.type == "lease.acquired":
        attempt.ended_at = attempt.ended_by = attempt.error_code = None
        attempt.version = fact.version


def _closes(fact: Fact) -> bool:
    """Whether the event ends the lease: its type sets the lease, and it has no token."""
    return fact.type in LEASED and fact.token is None
