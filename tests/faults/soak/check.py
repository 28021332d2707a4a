"""What must hold at the end of a soak, whatever happened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping
from typing import Final
from uuid import UUID

from runfold.ledger import Ledger, Run, State
from runfold.ledger.events import Event, StepCompleted, ToolCompleted
from runfold.ledger.lifecycle import ATTEMPTS_EXHAUSTED, HANDLER_FAILED, TERMINAL
from runfold.projections.state import drift
from tests.faults.soak.surroundings import PAST
from tests.support.processes import WHOLE, assert_accounted

ENDINGS: Final = ("run.completed", "run.failed", "run.cancelled", "approval.rejected")
_STOPPED: Final = """
SELECT name FROM ledger.projection WHERE failed_at IS NOT NULL
UNION ALL SELECT name FROM ledger.projection_aside
"""
_RUNS: Final = "SELECT run_id, kind FROM ledger.run_state ORDER BY run_id"


async def check(
    ledger: Ledger, submitted: Mapping[UUID, str], called_off: Container[UUID]
) -> Counter[str]:
    """Check every run against its history, and all of them together; return the event types."""
    rows = await ledger.pool.fetch(_RUNS)
    runs = {row["run_id"]: row["kind"] for row in rows}
    assert set(submitted) <= set(runs), "a run was lost"
    types: Counter[str] = Counter()
    for run_id, kind in runs.items():
        run, history = await ledger.get(run_id), await ledger.history(run_id)
        types.update(event.type for event in history)
        assert _explained(run, kind, history, called_off), (
            f"{kind} {run_id} is {run.state}: {[event.type for event in history]}"
        )
        recorded = Counter(
            event.name
            for event in history
            if isinstance(event, StepCompleted | ToolCompleted) and event.name is not None
        )
        assert set(recorded.values()) <= {1}, f"{kind} {run_id}: {recorded}"
        assert_accounted(history)
    report = await ledger.verify()
    assert report.ok, report.findings
    assert report.runs == len(runs)
    assert [difference async for difference in drift.check(ledger)] == []
    assert await ledger.pool.fetch(_STOPPED) == []
    return types


def _explained(run: Run, kind: str, history: list[Event], called_off: Container[UUID]) -> bool:
    types = Counter(event.type for event in history)
    assert run.state in TERMINAL
    assert sum(types[ending] for ending in ENDINGS) == 1
    match run.state:
        case State.COMPLETED:
            whole: dict[str, bool] = {
                "double": run.output == 8,
                "steps": run.output == WHOLE,
                "flaky": isinstance(run.output, int) and run.output > 1,
                "ask": run.output == "ann: fly",
                "countersign": run.output == ["ann", "bob"],
                "naps": run.output == "rested",
                "listens": run.output == "went",
                "parent": run.output == 16,
                PAST: True,
            }
            return whole.get(kind, False)
        case State.FAILED if run.error_code == ATTEMPTS_EXHAUSTED:
            return run.attempt_count == run.max_attempts
        case State.FAILED:
            return (
                kind in {"flaky", "parent"}
                and run.error_code == HANDLER_FAILED
                and run.attempt_count == run.max_attempts
            )
        case State.CANCELLED:
            return run.run_id in called_off
        case _:
            return False
