"""`runfold db upgrade|status|url`: the database under the ledger."""

from __future__ import annotations

from typing import Final

from runfold.console.cli.health.database_status import DatabaseStatus, database_status, upgraded
from runfold.console.cli.kit.options import OWNER, command, program
from runfold.console.cli.kit.session import Session
from runfold.console.shared.plain import jsonable, number_of
from runfold.ledger.postgres.server_roles import who_closes, who_grants
from runfold.ledger.postgres.urls import shown

app: Final = program("Upgrade the database's schema; show its status and URL.")


@command(app, "upgrade", rights="owner", needs=OWNER)
async def upgrade(session: Session) -> None:
    """Upgrade the database to this program's schema.

    It happens in one transaction, and every event stays. Indexes are built after it, beside the
    workers. A newer schema that works with this program is left as it is.
    """
    async with session.database(checked=False) as database:
        before, after, rest = await upgraded(database)
    if session.as_json:
        session.out.json(
            {
                "from": before.revision,
                "to": after.revision,
                "changed": before != after,
                **jsonable(rest),
            }
        )
    elif before.newer:
        session.out.line(
            f"schema {before.revision} is newer than this program's {before.wanted} and works "
            "with it"
        )
    elif before.current:
        session.out.line(f"schema {after.revision} is up to date")
    elif before.revision == after.revision:
        session.out.line(f"schema {after.revision}: functions replaced by this program's")
    else:
        session.out.line(f"schema {before.revision or 'none'} upgraded to {after.revision}")
    if rest.built_indexes:
        session.out.talk(f"built indexes: {', '.join(rest.built_indexes)}")
    if rest.ungrantable_roles:
        session.out.talk(who_grants(rest.ungrantable_roles))
    if rest.open_database:
        session.out.talk(who_closes(rest.open_database))
    if not database.embedded:
        session.out.talk("to create a project: runfold project create NAME")


@command(app, "status", rights="")
async def status(session: Session) -> None:
    """Show the server, the schema it has and the one this program needs, and the partitions."""
    async with session.database(checked=False) as database:
        current = await database_status(database)
    url = shown(database.url)
    if session.as_json:
        session.out.json(
            {
                "url": url,
                "embedded": database.embedded,
                "current": current.current,
                **jsonable(current),
            }
        )
        return
    for name, value in _lines(current, url, embedded=database.embedded):
        session.out.line(f"{name:<10} {value}")
    if current.newer and current.works:
        session.out.talk("the schema is newer than this program, and works with it")
    elif current.newer:
        session.out.talk("the schema is newer than this program: install a newer runfold")
    elif not current.current:
        session.out.talk("to bring it up to date: runfold db upgrade")


def _lines(status: DatabaseStatus, url: str, *, embedded: bool) -> list[tuple[str, str]]:
    ahead = f"{number_of(status.months_ahead, 'month')} ahead"
    if status.months_ahead < 0:
        ahead = "none for this month"
    return [
        ("server", f"PostgreSQL {status.server}{' (built-in)' if embedded else ''}"),
        ("url", url),
        ("schema", f"{status.revision or 'none'}, this program needs {status.wanted}"),
        ("functions", "up to date" if status.functions_current else "not this program's"),
        ("partitions", f"{len(status.partitions)}, {ahead}"),
    ]


@command(app, "url", rights="")
async def url(session: Session) -> None:
    """Print the database's URL, for other programs.

    The built-in server is started for it, and stops when the last runfold program that uses it
    ends.
    """
    async with session.database(checked=False) as database:
        if session.as_json:
            session.out.json({"url": database.url, "embedded": database.embedded})
        else:
            session.out.line(database.url)
        if database.embedded:
            session.out.talk(
                "the built-in server stops when the last runfold program that uses it ends"
            )
