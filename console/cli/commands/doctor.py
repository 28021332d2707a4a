"""`runfold doctor`: whether everything is as it should be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import typer

from runfold.console.cli.kit.exits import OK, UNHEALTHY
from runfold.console.cli.kit.options import command
from runfold.console.cli.kit.output import Output
from runfold.console.cli.kit.plain import clean, jsonable
from runfold.console.cli.kit.session import Session

if TYPE_CHECKING:
    from runfold.console.cli.health.checks import Check

_COLOURS: Final = {"ok": "green", "warning": "yellow", "failed": "bold red"}


async def doctor(session: Session) -> int:
    """Check server, schema, clock, leases, kinds, partitions and privileges; say what to do about what is wrong."""
    from runfold.console.cli.health.checks import Check, Level
    from runfold.ledger.errors import AccessDenied, DatabaseUnavailable, EmbeddedPostgresError

    try:
        found = await _examine(session)
    except (AccessDenied, DatabaseUnavailable, EmbeddedPostgresError) as error:
        found = [Check("database", Level.FAILED, str(error))]
    healthy = all(check.level != Level.FAILED for check in found)
    _write(session.out, found, healthy=healthy)
    return OK if healthy else UNHEALTHY


async def _examine(session: Session) -> list[Check]:
    from runfold.console.cli.health import checks
    from runfold.console.cli.health.database_status import standing
    from runfold.ledger.settings import Settings

    async with session.database(checked=False) as database:
        stands = await standing(database)
        found = [checks.server(stands), checks.revision(stands), await checks.clock(database)]
        if stands.revision is not None and not stands.newer:
            found += [checks.functions(stands), checks.partitions(stands)]
            found.append(await checks.leases(database, Settings.load().reaper_seconds))
            found.append(await checks.served(database))
            found.append(await checks.privileges(database))
        return found


def _write(out: Output, found: list[Check], *, healthy: bool) -> None:
    if out.as_json:
        out.json({"healthy": healthy, "checks": jsonable(found)})
        return
    from rich.text import Text

    for check in found:
        line = Text(f"{check.level:<8}", style=_COLOURS[check.level])
        line.append(f"{check.name:<11}{clean(check.detail)}", style="not bold default")
        out.line(line)
    out.talk("healthy" if healthy else "unhealthy")


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "doctor", panel="Care")(doctor)
