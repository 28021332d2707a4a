"""What a rebuild does, how far it is, and what it could not fold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, TypeAlias
from uuid import UUID


@dataclass(frozen=True, slots=True)
class RebuildPlan:
    """What is rebuilt and how.

    `create` makes the table {shadow}, and `fill` fills it for one range of runs: it takes the first
    and the last run, then `args`, then the moment if there is one, and returns how many rows it
    wrote from how many events. `moment` is what was visible when the rebuild began; a resumed
    rebuild keeps its first moment.
    """

    projection: str
    create: str
    fill: str
    args: tuple[Any, ...] = ()
    project_id: str | None = None
    until: datetime | None = None
    moment: str | None = None
    schema: str = "ledger"

    def definition(self) -> str:
        """Return a name of the plan by its content: a rebuild by another plan is not resumed."""
        return sha256(f"{self.create}\n{self.fill}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class RebuildProgress:
    """How far a rebuild is; the rate counts what was done since it began or was resumed."""

    ranges: int
    done: int
    rows: int
    events: int
    errors: int
    seconds: float
    events_per_second: float
    seconds_left: float | None


OnProgress: TypeAlias = Callable[[RebuildProgress], None]
"""What is called after each range."""


@dataclass(frozen=True, slots=True)
class BadRun:
    """A run whose history could not be folded."""

    run_id: UUID
    error: str
