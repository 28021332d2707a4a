"""Every question to a person: since when it waits or how long it waited, who decided, and why."""

from __future__ import annotations

from typing import Final

from runfold.projections.algebra.operation import first, greatest
from runfold.projections.algebra.source import Source
from runfold.projections.declared.projection import Projection
from runfold.projections.declared.sources import earlier, field, since

_ASKED: Final = frozenset({"approval.requested"})
_YES: Final = frozenset({"approval.requested", "approval.signed", "approval.granted"})
DECIDED: Final = frozenset(
    {
        "approval.granted", "approval.rejected", "approval.expired", "approval.lapsed",
        "run.cancelled", "run.timed_out",
    }
)  # fmt: skip
"""What ends the waiting; the last two only for a run that waits."""

_REQUEST: Final = Source(
    f"CASE WHEN event.type LIKE 'approval.%' THEN {earlier('version', _ASKED, inclusive=True).sql} "
    f"WHEN {earlier('state').sql} = 'waiting_approval' THEN {earlier('version', _ASKED).sql} END",
    "int",
)

APPROVALS: Final = Projection(
    "approvals",
    key={"project_id": "project_id", "run_id": "run_id", "request": _REQUEST},
    columns={
        "asked_at": first("recorded_at", _ASKED),
        "prompt": first(field("prompt"), _ASKED),
        "wait_until": first("wait_until", _ASKED),
        "approvals": first("approvals", _ASKED),
        "approved": greatest("approved", _YES),
        "decided_at": first("recorded_at", DECIDED),
        "outcome": first("type", DECIDED),
        "decided_by": first("actor", DECIDED),
        "reason": first(field("reason"), DECIDED),
        "waited": greatest(since(_ASKED), DECIDED),
    },
    derived={"waiting_for": "CASE WHEN decided_at IS NULL THEN ledger.now() - asked_at END"},
)
