"""`runfold doctor`: check the ledger's health and name remedies."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final

from rich.text import Text

from runfold.console.cli.health.access_checks import (
    access,
    limits,
    privileges,
    roles,
    settings,
)
from runfold.console.cli.health.check import Check, Level
from runfold.console.cli.health.database_status import database_status
from runfold.console.cli.health.object_checks import objects
from runfold.console.cli.health.reader_checks import projections, webhooks
from runfold.console.cli.health.schema_checks import feed, functions, indexes, partitions, revision
from runfold.console.cli.health.server_checks import (
    clock,
    clock_steps,
    connections,
    encoding,
    server,
)
from runfold.console.cli.health.waiting_checks import approvals, handlers
from runfold.console.cli.health.work_checks import leases, schedules, served
from runfold.console.cli.kit.exits import OK, UNHEALTHY
from runfold.console.cli.kit.options import command, program
from runfold.console.cli.kit.output import Output
from runfold.console.cli.kit.session import Session
from runfold.console.shared.known_errors import known
from runfold.console.shared.plain import jsonable
from runfold.ledger.errors import AccessDenied, DatabaseUnavailable, EmbeddedPostgresError
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.postgres.errors import is_read_only
from runfold.ledger.postgres.locks import LOCK_TIMEOUT
from runfold.ledger.settings import Settings

_COLOURS: Final = {"ok": "green", "warning": "yellow", "failed": "bold red"}


app: Final = program()


@command(app, "doctor", rights="")
async def doctor(session: Session) -> int:
    """Check the ledger's health and name remedies.

    The checks: server, schema, settings, encoding, clock, connections, functions, partitions,
    objects, indexes, time, feed, leases, kinds, handlers, approvals, schedules, projections,
    webhooks, roles, privileges, access and limits. Exit code 9 if one has failed.
    """
    try:
        checks = await examine(session)
    except (AccessDenied, DatabaseUnavailable, EmbeddedPostgresError) as error:
        checks = [Check("database", Level.FAILED, str(error))]
    healthy = all(check.level != Level.FAILED for check in checks)
    _write(session.out, checks, healthy=healthy)
    return OK if healthy else UNHEALTHY


async def examine(session: Session) -> list[Check]:
    """Return what each check finds. Raises DatabaseUnavailable, AccessDenied or ConfigurationError.

    None waits longer for a lock than a moment.
    """
    async with session.database(checked=False) as database:
        # For all of them: they come one after another, on the pool's one connection.
        await fetch(database.pool, f"SET lock_timeout = '{LOCK_TIMEOUT}'")
        # Objects are compared with temporary ones, which a session that only reads cannot make.
        await fetch(database.pool, "SET default_transaction_read_only = off")
        status = await database_status(database)
        checks = [server(status), revision(status), settings()]
        settings_ = Settings.load()
        checks += [
            await _checked("encoding", encoding(database)),
            await _checked("clock", clock(database)),
            await _checked(
                "connections",
                connections(database, settings_.pool_size, listen=settings_.listen),
            ),
        ]
        if status.revision is None or (status.newer and not status.works):
            return checks
        return [
            *checks,
            *([] if status.newer else [functions(status)]),
            partitions(status),
            *([await _checked("objects", objects(database))] if status.current else []),
            await _checked("indexes", indexes(database)),
            await _checked("time", clock_steps(database)),
            await _checked("feed", feed(database)),
            await _checked("leases", leases(database, settings_.reaper_seconds)),
            await _checked("kinds", served(database)),
            await _checked("handlers", handlers(database)),
            await _checked("approvals", approvals(database)),
            await _checked("schedules", schedules(database)),
            await _checked("projections", projections(database)),
            await _checked("webhooks", webhooks(database)),
            await _checked("roles", roles(database)),
            await _checked("privileges", privileges(database)),
            *await _all_checked("access", access(database)),
            *await _all_checked("limits", limits(database)),
        ]


async def _checked(name: str, check: Awaitable[Check]) -> Check:
    async def alone() -> list[Check]:
        return [await check]

    [result] = await _all_checked(name, alone())
    return result


async def _all_checked(name: str, checks: Awaitable[list[Check]]) -> list[Check]:
    try:
        return await checks
    except Exception as error:
        expected = known(error)
        if getattr(expected and expected.__cause__, "sqlstate", None) == "55P03":
            held = f"a table stayed locked for {LOCK_TIMEOUT}: `access` names who holds it"
            return [Check(name, Level.FAILED, held)]
        if expected is None:
            raise
        if isinstance(expected, DatabaseUnavailable) and not is_read_only(expected):
            raise
        reason = expected.reason if isinstance(expected, AccessDenied) else str(expected)
        return [Check(name, Level.WARNING, f"cannot be checked here: {reason}")]


def _write(out: Output, checks: list[Check], *, healthy: bool) -> None:
    if out.as_json:
        out.json({"healthy": healthy, "checks": jsonable(checks)})
        return
    for check in checks:
        line = Text(f"{check.level:<8}", style=_COLOURS[check.level])
        line.append(f"{check.name:<12}", style="not bold default")
        out.entry(line, check.detail)
    out.talk("healthy" if healthy else "unhealthy")
