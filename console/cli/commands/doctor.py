"""`runfold doctor`: check the ledger's health and name remedies."""

from __future__ import annotations

from typing import Final

from rich.text import Text

from runfold.console.cli.health import checks
from runfold.console.cli.health.checks import Check, Level
from runfold.console.cli.health.database_status import database_status
from runfold.console.cli.kit.exits import OK, UNHEALTHY
from runfold.console.cli.kit.options import command, program
from runfold.console.cli.kit.output import Output
from runfold.console.cli.kit.plain import clean, jsonable
from runfold.console.cli.kit.session import Session
from runfold.ledger.errors import AccessDenied, DatabaseUnavailable, EmbeddedPostgresError
from runfold.ledger.settings import Settings

_COLOURS: Final = {"ok": "green", "warning": "yellow", "failed": "bold red"}


app: Final = program()


@command(app, "doctor")
async def doctor(session: Session) -> int:
    """Check the ledger's health and name remedies.

    The checks: server, schema, functions, partitions, clock, leases, kinds and privileges.
    """
    try:
        found = await _examine(session)
    except (AccessDenied, DatabaseUnavailable, EmbeddedPostgresError) as error:
        found = [Check("database", Level.FAILED, str(error))]
    healthy = all(check.level != Level.FAILED for check in found)
    _write(session.out, found, healthy=healthy)
    return OK if healthy else UNHEALTHY


async def _examine(session: Session) -> list[Check]:

    async with session.database(checked=False) as database:
        status = await database_status(database)
        found = [checks.server(status), checks.revision(status), await checks.clock(database)]
        if status.revision is not None and not status.newer:
            found += [checks.functions(status), checks.partitions(status)]
            found.append(await checks.leases(database, Settings.load().reaper_seconds))
            found.append(await checks.served(database))
            found.append(await checks.privileges(database))
        return found


def _write(out: Output, found: list[Check], *, healthy: bool) -> None:
    if out.as_json:
        out.json({"healthy": healthy, "checks": jsonable(found)})
        return

    for check in found:
        line = Text(f"{check.level:<8}", style=_COLOURS[check.level])
        line.append(f"{check.name:<11}{clean(check.detail)}", style="not bold default")
        out.line(line)
    out.talk("healthy" if healthy else "unhealthy")
