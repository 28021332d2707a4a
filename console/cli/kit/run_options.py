"""The options that choose runs: by state, kind, worker, tag and key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from runfold.ledger import Ledger
from runfold.ledger.lifecycle import State
from runfold.ledger.postgres.connections import fetch

_COUNTS: Final = """
SELECT run.state, count(*) AS number FROM ledger.run_state AS run
WHERE run.project_id = $1 AND ($2::text[] IS NULL OR run.state = ANY ($2))
  AND ($3::text IS NULL OR run.kind = $3) AND ($4::text IS NULL OR run.worker_id = $4)
  AND ($5::text IS NULL OR run.tags @> ARRAY[$5]) AND ($6::text IS NULL OR run.key = $6)
GROUP BY run.state
"""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the chosen runs must have; None means anything."""

    states: Sequence[str] | None = None
    kind: str | None = None
    worker: str | None = None
    tag: str | None = None
    key: str | None = None

    def arguments(self) -> dict[str, Any]:
        """Return the options as arguments of `Ledger.runs`."""
        return {
            "state": self.states,
            "kind": self.kind,
            "worker_id": self.worker,
            "tag": self.tag,
            "key": self.key,
        }


async def count_runs(ledger: Ledger, options: RunOptions) -> dict[str, int]:
    """Return the number of runs in each state, in the order of a run's life.

    Raises as `Ledger.runs` does for an option that it refuses.
    """
    await ledger.runs(**options.arguments(), limit=1)
    rows = await fetch(
        ledger.pool,
        _COUNTS,
        ledger.project_id,
        options.states,
        options.kind,
        options.worker,
        options.tag,
        options.key,
    )
    counts = {row["state"]: row["number"] for row in rows}
    return {state.value: counts[state.value] for state in State if state.value in counts}
