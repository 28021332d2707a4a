"""`runfold db`: the database under the ledger."""

from __future__ import annotations

from typing import Final

import typer

from runfold.console.cli.kit.options import command
from runfold.console.cli.kit.plain import jsonable
from runfold.console.cli.kit.session import Session

app: Final = typer.Typer(
    help="The database: bring its schema up to date, see how it stands.", no_args_is_help=True
)


@command(app, "upgrade")
async def upgrade(session: Session) -> None:
    """Bring the database to this program's schema, in one transaction; every event stays."""
    from runfold.console.cli.health import database_status as standing

    async with session.database(checked=False) as database:
        before, after = await standing.upgrade(database)
    if session.as_json:
        session.out.json(
            {"from": before.revision, "to": after.revision, "changed": not before.current}
        )
    elif before.current:
        session.out.line(f"schema {after.revision} is up to date")
    elif before.revision == after.revision:
        session.out.line(f"schema {after.revision}: functions replaced by this program's")
    else:
        session.out.line(f"schema {before.revision or 'none'} upgraded to {after.revision}")
    if not database.embedded:
        session.out.talk("to make a project: runfold project create NAME")


@command(app, "status")
async def status(session: Session) -> None:
    """Show the server, the schema it has and the one this program needs, and the partitions."""
    from runfold.console.cli.health.database_status import standing
    from runfold.ledger.postgres.connections import shown

    async with session.database(checked=False) as database:
        found = await standing(database)
    url = shown(database.url)
    if session.as_json:
        session.out.json(
            {"url": url, "embedded": database.embedded, "current": found.current, **jsonable(found)}
        )
        return
    ahead = (
        f", {found.months_ahead} months ahead"
        if found.months_ahead >= 0
        else ", none for this month"
    )
    for name, value in (
        ("server", f"PostgreSQL {found.server}{' (built-in)' if database.embedded else ''}"),
        ("url", url),
        ("schema", f"{found.revision or 'none'}, this program needs {found.wanted}"),
        ("functions", "this program's" if found.functions_current else "not this program's"),
        ("partitions", f"{len(found.partitions)}{ahead}"),
    ):
        session.out.line(f"{name:<10} {value}")
    if found.newer:
        session.out.talk("the schema is newer than this program: install a newer runfold")
    elif not found.current:
        session.out.talk("to bring it up to date: runfold db upgrade")


@command(app, "url")
async def url(session: Session) -> None:
    """Print the database's URL, for other programs; the built-in server is started for it."""
    async with session.database(checked=False) as database:
        if session.as_json:
            session.out.json({"url": database.url, "embedded": database.embedded})
        else:
            session.out.line(database.url)
        if database.embedded:
            session.out.talk(
                "the built-in server stops when the last runfold program that uses it ends"
            )
