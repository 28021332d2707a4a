"""The projections that a command names, and the error where their module is not named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

import typer

from runfold.console.cli.kit.session import Session
from runfold.console.cli.kit.user_traceback import broken_module_shown
from runfold.console.shared.projection_modules import declared_projections
from runfold.console.shared.values import Misuse
from runfold.ledger.postgres.connections import fetch
from runfold.projections.declared.projection import Projection
from runfold.projections.errors import ProjectionNotFound

Modules = Annotated[
    list[str] | None,
    typer.Option(
        "--module",
        metavar="MODULE",
        help="A module that declares projections; else RUNFOLD_PROJECTIONS.",
    ),
]
_INSTALLED: Final = "SELECT FROM ledger.projection WHERE name = $1"


async def chosen_projections(
    session: Session,
    modules: Sequence[str] | None,
    names: Sequence[str] = (),
    *,
    besides: Sequence[str] = (),
) -> list[Projection]:
    """Return the projections of these names, or all that are declared, as `declared_projections`.

    Raises ProjectionNotFound, or Misuse for one that is installed and whose module is not named.
    """
    try:
        with broken_module_shown(as_json=session.as_json):
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
