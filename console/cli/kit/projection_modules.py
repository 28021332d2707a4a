"""Which projections a command is about: those that ship, and those of the modules that it or the settings name."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from runfold.ledger.settings import Settings
from runfold.projections.declared.installing import declared as found
from runfold.projections.declared.projection import Projection
from runfold.projections.errors import ProjectionNotFound


def declared(
    modules: Sequence[str] | None, names: Sequence[str] = (), *, besides: Sequence[str] = ()
) -> list[Projection]:
    """Give the projections of these names, each once, or all that are declared; `besides`: what else could be named.

    Raises ProjectionNotFound.
    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    configured = [
        module.strip() for module in Settings.load().projections.split(",") if module.strip()
    ]
    known = found(modules or configured)
    for name in names:
        if name not in known:
            raise ProjectionNotFound(name, [*besides, *sorted(known)])
    return [known[name] for name in dict.fromkeys(names)] or list(known.values())
