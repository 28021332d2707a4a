"""The projections that ship, and those of the modules that a command or the settings name."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

from runfold.console.cli.kit.session import Session
from runfold.console.cli.kit.values import Misuse
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.settings import Settings
from runfold.projections.declared.installing import declared
from runfold.projections.declared.projection import Projection
from runfold.projections.errors import ProjectionNotFound

_INSTALLED: Final = "SELECT FROM ledger.projection WHERE name = $1"


def declared_projections(
    modules: Sequence[str] | None, names: Sequence[str] = (), *, besides: Sequence[str] = ()
) -> list[Projection]:
    """Return the projections of these names, each once; without names all that are declared.

    `besides`: other names that the command accepts, for the error. Raises ProjectionNotFound.
    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    configured = [
        module.strip() for module in Settings.load().projections.split(",") if module.strip()
    ]
    known = declared(modules or configured)
    for name in names:
        if name not in known:
            raise ProjectionNotFound(name, [*besides, *sorted(known)])
    return [known[name] for name in dict.fromkeys(names)] or list(known.values())


async def chosen_projections(
    session: Session,
    modules: Sequence[str] | None,
    names: Sequence[str] = (),
    *,
    besides: Sequence[str] = (),
) -> list[Projection]:
    """Return what `declared_projections` does.

    Raises Misuse for a projection that is installed and whose module is not named.
    """
    try:
        return declared_projections(modules, names, besides=besides)
    except ProjectionNotFound as error:
        await _name_missing(session, error, modules)
        raise


async def _name_missing(
    session: Session, error: ProjectionNotFound, modules: Sequence[str] | None
) -> None:
    """Raise Misuse if the projection is installed and only its declaration is missing."""
    async with session.database() as database:
        rows = await fetch(database.pool, _INSTALLED, error.name)
    if rows:
        where = f"not in {', '.join(modules)}" if modules else "in a module that is not named"
        raise Misuse(
            "--module",
            f"{error.name} is installed, but its declaration is {where}: "
            "name that module, or set RUNFOLD_PROJECTIONS",
        )
