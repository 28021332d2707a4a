"""Projections: read models that follow from the events; all that one declaration needs.

from runfold.projections import Projection, count, day, of_run, total

SPENDING = Projection(
"spending",
key={"project_id": "project_id", "kind": of_run("kind"), "day": day()},
columns={"cost_usd": total("cost_usd"), "failed": count({"run.failed"})},
)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from runfold.projections.algebra.fold import Fold as Fold
    from runfold.projections.algebra.fold import NarrowedFold as NarrowedFold
    from runfold.projections.algebra.operation import Operation as Operation
    from runfold.projections.algebra.operation import SourceOperation as SourceOperation
    from runfold.projections.algebra.operation import assign as assign
    from runfold.projections.algebra.operation import count as count
    from runfold.projections.algebra.operation import first as first
    from runfold.projections.algebra.operation import greatest as greatest
    from runfold.projections.algebra.operation import last as last
    from runfold.projections.algebra.operation import least as least
    from runfold.projections.algebra.operation import once as once
    from runfold.projections.algebra.operation import total as total
    from runfold.projections.algebra.source import Source as Source
    from runfold.projections.declared.catch_up import CatchUp as CatchUp
    from runfold.projections.declared.installing import install as install
    from runfold.projections.declared.projection import Apply as Apply
    from runfold.projections.declared.projection import Projection as Projection
    from runfold.projections.declared.refold import refold as refold
    from runfold.projections.declared.refold import refold_until as refold_until
    from runfold.projections.declared.rows import rows as rows
    from runfold.projections.declared.sources import day as day
    from runfold.projections.declared.sources import each as each
    from runfold.projections.declared.sources import earlier as earlier
    from runfold.projections.declared.sources import either as either
    from runfold.projections.declared.sources import field as field
    from runfold.projections.declared.sources import of_lease as of_lease
    from runfold.projections.declared.sources import of_run as of_run
    from runfold.projections.declared.sources import since as since
    from runfold.projections.declared.status import set_aside as set_aside
    from runfold.projections.declared.status import statuses as statuses
    from runfold.projections.errors import DeclaredTwice as DeclaredTwice
    from runfold.projections.errors import NotStopped as NotStopped
    from runfold.projections.errors import OtherVersion as OtherVersion
    from runfold.projections.errors import ProjectionFailed as ProjectionFailed
    from runfold.projections.errors import ProjectionNotFound as ProjectionNotFound
    from runfold.projections.errors import ProjectionPaused as ProjectionPaused
    from runfold.projections.errors import RebuildFailed as RebuildFailed
    from runfold.projections.errors import RebuildRunning as RebuildRunning
    from runfold.projections.errors import Redeclared as Redeclared
    from runfold.projections.errors import TableChanged as TableChanged
    from runfold.projections.state.drift import Drift as Drift
    from runfold.projections.state.replay import replay as replay
    from runfold.projections.state.replay import replay_until as replay_until

_MODULES: Final = {
    "algebra.fold": ("Fold", "NarrowedFold"),
    "algebra.operation": (
        "Operation", "SourceOperation", "assign", "count", "first", "greatest", "last", "least",
        "once", "total",
    ),
    "algebra.source": ("Source",),
    "declared.catch_up": ("CatchUp",),
    "declared.installing": ("install",),
    "declared.projection": ("Apply", "Projection"),
    "declared.refold": ("refold", "refold_until"),
    "declared.sources": (
        "day", "each", "earlier", "either", "field", "of_lease", "of_run", "since",
    ),
    "declared.rows": ("rows",),
    "declared.status": ("set_aside", "statuses"),
    "errors": (
        "DeclaredTwice", "NotStopped", "OtherVersion", "ProjectionFailed",
        "ProjectionNotFound", "ProjectionPaused", "RebuildFailed", "RebuildRunning", "Redeclared",
        "TableChanged",
    ),
    "state.drift": ("Drift",),
    "state.replay": ("replay", "replay_until"),
}  # fmt: skip
_HOMES: Final = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_HOMES)  # noqa: PLE0605  the same names, known once


def __getattr__(name: str) -> object:
    """Import a name when it is first used, so that importing a submodule stays cheap."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List what can be imported."""
    return list(__all__)
