"""Projections: read models that follow from the events; all that one declaration needs.

```python
from runfold.projections import Projection, count, day, of_run, total

SPENDING = Projection(
    "my_spending",
    version=1,
    key={"project_id": "project_id", "kind": of_run("kind"), "day": day()},
    columns={"cost_usd": total("cost_usd"), "failed": count({"run.failed"})},
)
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runfold.lazy import exported

if TYPE_CHECKING:
    from runfold.projections.algebra.fold import Fold, NarrowedFold, Operation
    from runfold.projections.algebra.operation import (
        SourceOperation,
        assign,
        count,
        first,
        greatest,
        last,
        least,
        once,
        total,
    )
    from runfold.projections.algebra.source import Source
    from runfold.projections.declared.catch_up import CatchUp
    from runfold.projections.declared.installing import install
    from runfold.projections.declared.projection import Apply, Projection
    from runfold.projections.declared.refold import refold, refold_until
    from runfold.projections.declared.rows import rows
    from runfold.projections.declared.sources import (
        day,
        each,
        earlier,
        either,
        field,
        of_lease,
        of_run,
        since,
    )
    from runfold.projections.declared.status import set_aside, statuses
    from runfold.projections.errors import (
        DeclaredTwice,
        NotStopped,
        OtherVersion,
        ProjectionFailed,
        ProjectionNotFound,
        ProjectionPaused,
        RebuildFailed,
        RebuildRunning,
        Redeclared,
        TableChanged,
    )
    from runfold.projections.state.drift import Drift
    from runfold.projections.state.replay import replay, replay_until

__all__ = [
    "Apply",
    "CatchUp",
    "DeclaredTwice",
    "Drift",
    "Fold",
    "NarrowedFold",
    "NotStopped",
    "Operation",
    "OtherVersion",
    "Projection",
    "ProjectionFailed",
    "ProjectionNotFound",
    "ProjectionPaused",
    "RebuildFailed",
    "RebuildRunning",
    "Redeclared",
    "Source",
    "SourceOperation",
    "TableChanged",
    "assign",
    "count",
    "day",
    "each",
    "earlier",
    "either",
    "field",
    "first",
    "greatest",
    "install",
    "last",
    "least",
    "of_lease",
    "of_run",
    "once",
    "refold",
    "refold_until",
    "replay",
    "replay_until",
    "rows",
    "set_aside",
    "since",
    "statuses",
    "total",
]

_HOMES: Final = {
    "runfold.projections.algebra.fold": (
        "Fold",
        "NarrowedFold",
        "Operation",
    ),
    "runfold.projections.algebra.operation": (
        "SourceOperation",
        "assign",
        "count",
        "first",
        "greatest",
        "last",
        "least",
        "once",
        "total",
    ),
    "runfold.projections.algebra.source": ("Source",),
    "runfold.projections.declared.catch_up": ("CatchUp",),
    "runfold.projections.declared.installing": ("install",),
    "runfold.projections.declared.projection": (
        "Apply",
        "Projection",
    ),
    "runfold.projections.declared.refold": (
        "refold",
        "refold_until",
    ),
    "runfold.projections.declared.rows": ("rows",),
    "runfold.projections.declared.sources": (
        "day",
        "each",
        "earlier",
        "either",
        "field",
        "of_lease",
        "of_run",
        "since",
    ),
    "runfold.projections.declared.status": (
        "set_aside",
        "statuses",
    ),
    "runfold.projections.errors": (
        "DeclaredTwice",
        "NotStopped",
        "OtherVersion",
        "ProjectionFailed",
        "ProjectionNotFound",
        "ProjectionPaused",
        "RebuildFailed",
        "RebuildRunning",
        "Redeclared",
        "TableChanged",
    ),
    "runfold.projections.state.drift": ("Drift",),
    "runfold.projections.state.replay": (
        "replay",
        "replay_until",
    ),
}

if not TYPE_CHECKING:  # hidden from type checkers, which would accept any name
    __getattr__ = exported(
        __name__, {name: home for home, names in _HOMES.items() for name in names}
    )


def __dir__() -> list[str]:
    """List what can be imported."""
    return list(__all__)
