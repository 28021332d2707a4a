"""The projections that ship, and those of the modules that a command or the settings name."""

from __future__ import annotations

from collections.abc import Sequence

from runfold.ledger.settings import Settings
from runfold.projections.declared.installing import declared
from runfold.projections.declared.projection import Projection
from runfold.projections.errors import ProjectionNotFound


def declared_projections(
    modules: Sequence[str] | None, names: Sequence[str] = (), *, besides: Sequence[str] = ()
) -> list[Projection]:
    """Return the projections of these names, each once; without names, all that are declared.

    `besides`: other names that the command accepts, for the error. Raises ProjectionNotFound.
    """
    configured = [
        module.strip() for module in Settings.load().projections.split(",") if module.strip()
    ]
    known = declared(modules or configured)
    for name in names:
        if name not in known:
            raise ProjectionNotFound(name, [*besides, *sorted(known)])
    return [known[name] for name in dict.fromkeys(names)] or list(known.values())
