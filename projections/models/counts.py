"""How many runs of each kind are in each state, so that no page ever counts runs."""

from __future__ import annotations

from typing import Final

from runfold.ledger.lifecycle import FIRST, MOVES
from runfold.projections.algebra.operation import count, last
from runfold.projections.declared.projection import Projection
from runfold.projections.declared.sources import earlier, of_run

_ON: Final = frozenset(
    {FIRST, *(type_ for type_, moves in MOVES.items() if any(state for _, state in moves))}
)

RUN_COUNTS: Final = Projection(
    "run_counts",
    key={"project_id": "project_id", "kind": of_run("kind"), "state": "state"},
    columns={
        "entered": count(_ON).where(present="state"),
        "departed": count(_ON).where(present="state", key={"state": earlier("state")}),
        "changed_at": last("recorded_at", _ON).where(present="state"),
    },
    derived={"runs": "entered - departed"},
)
