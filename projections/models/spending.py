"""What the runs of a kind cost on a day, and how many began and ended."""

from __future__ import annotations

from typing import Final

from runfold.ledger.lifecycle import FIRST
from runfold.projections.algebra.operation import count, total
from runfold.projections.declared.projection import Projection
from runfold.projections.declared.sources import day, of_run

SPENDING: Final = Projection(
    "spending",
    key={"project_id": "project_id", "kind": of_run("kind"), "day": day()},
    columns={
        "cost_usd": total("cost_usd").where(present="cost_usd"),
        "step_count": total("step_count").where(present="step_count"),
        "submitted": count({FIRST}),
        "completed": count({"run.completed"}),
        "failed": count({"run.failed", "run.timed_out"}),
    },
)
