"""`runfold project`: the projects of a database."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from runfold.console.cli.kit.options import OWNER, command, program
from runfold.console.cli.kit.session import Session

app: Final = program("Create and list projects.")


@command(app, "create", rights="owner", needs=OWNER)
async def create(
    session: Session,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Lower-case letters, digits, - and _; at most 63.")
    ],
) -> None:
    """Create a project; one that exists stays as it is."""
    async with session.database() as database:
        created = await database.create_project(name)
    if session.as_json:
        session.out.json({"project_id": name, "created": created})
        return
    session.out.line(name)
    if not created:
        session.out.talk("nothing new: the project exists")


@command(app, "list", rights="")
async def list_(session: Session) -> None:
    """List every project."""
    async with session.database() as database:
        names = await database.projects()
    for name in names:
        if session.as_json:
            session.out.json({"project_id": name})
        else:
            session.out.line(name)
    if not names:
        session.out.talk("no projects yet: runfold project create NAME")
