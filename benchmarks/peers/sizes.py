"""How much is done: the sizes of a measurement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Size:
    """How much is done of each workload.

    Jobs are counted by a system's own pace, so that a part takes as long for a slow one.
    """

    jobs: int
    """Of a drain, at most."""
    seconds: float
    """How long a drain is meant to take, and how long single submits are made."""
    slots: tuple[int, ...]
    trickles_ms: tuple[int, ...]
    looks: int
    """Submits of a trickle, at most."""
    trickle_seconds: float
    held_seconds: float
    """For how long a snapshot is held under load, and for how long none is."""
    crash_seconds: float
    """How long it may take until every job of a killed worker is done."""
    timeout: float
    """Seconds for one part, after which it counts as failed."""
    rounds: int
    """How often a part is measured, at most."""
    minutes: float
    """How long all may take; a part is repeated if it will be over by then."""
    events: int
    """Events to fold."""
    leases: int
    beats: int
    """Beats of each of the leases, every 15 seconds."""
    cost_runs: int
    """Runs for each number of slots, at most, of which the cost is told to the microsecond."""


QUICK: Final = Size(
    jobs=1_000, seconds=0.5, slots=(10, 500), trickles_ms=(20,), looks=40, trickle_seconds=1,
    held_seconds=1.5, crash_seconds=150, timeout=60, rounds=1, minutes=15, events=60_000,
    leases=1_000, beats=1, cost_runs=500,
)  # fmt: skip
MIDDLE: Final = Size(
    jobs=30_000, seconds=2, slots=(10, 50, 500), trickles_ms=(5, 20, 100), looks=300,
    trickle_seconds=3, held_seconds=6, crash_seconds=150, timeout=45, rounds=3, minutes=20,
    events=600_000, leases=10_000, beats=2, cost_runs=4_000,
)  # fmt: skip
FULL: Final = Size(
    jobs=100_000, seconds=10, slots=(1, 5, 10, 50, 200, 500, 1_000),
    trickles_ms=(5, 7, 20, 50, 100, 1_000), looks=1_000, trickle_seconds=60, held_seconds=600,
    crash_seconds=180, timeout=900, rounds=3, minutes=2_880, events=2_000_000, leases=10_000,
    beats=4, cost_runs=10_000,
)  # fmt: skip
MAIN_SLOTS: Final = 500
"""The number of slots of every part that is about something else."""
