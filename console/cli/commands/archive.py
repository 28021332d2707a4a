"""`runfold archive`: whole months of events in files of their own."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from runfold.console.cli.commands import archive_check, archive_holds
from runfold.console.cli.kit.exits import CONFLICT, OK
from runfold.console.cli.kit.options import OWNER, Actor, OrderReason, command, program
from runfold.console.cli.kit.output import EMPTY
from runfold.console.cli.kit.session import Session
from runfold.console.shared.plain import number_of
from runfold.ledger.archive.record import Archive
from runfold.ledger.archive.status import months
from runfold.ledger.errors import ConfigurationError

app: Final = program("Export, detach and attach whole months of events.")

Month = Annotated[
    str,
    typer.Argument(metavar="MONTH", help="A month in which runs were submitted, such as 2026-01."),
]


Dry = Annotated[
    bool,
    typer.Option("--dry-run", help="Only list the obstacles; exit code 6 if there is one."),
]


@command(app, "list", rights="")
async def list_(session: Session) -> None:
    """List the months of the database and of the archive, all projects together."""
    async with session.database() as database:
        listed = await months(database.pool)
    if session.as_json:
        for month in listed:
            session.out.json(
                {
                    **asdict(month),
                    "archive": None if month.archive is None else _facts(month.archive),
                }
            )
        return
    rows = [
        (
            month.month,
            month.state,
            EMPTY if month.bytes is None else f"{month.bytes:,}",
            EMPTY if month.archive is None else f"{month.archive.events:,}",
            EMPTY if month.archive is None else f"{month.archive.size_bytes:,}",
            EMPTY if not month.holds else str(month.holds),
            EMPTY if month.archive is None else str(month.archive.path),
        )
        for month in listed
    ]
    titles = ("MONTH", "STATE", "BYTES HERE", "EVENTS", "BYTES IN FILE", "HOLDS", "FILE")
    session.out.table(
        titles, rows, ["dim" if month.state == "detached" else None for month in listed]
    )


@command(app, "export", rights="owner", needs=OWNER)
async def export(
    session: Session,
    month: Month,
    *,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to", metavar="FOLDER", help="Where the file is written; else RUNFOLD_ARCHIVE."
        ),
    ] = None,
    dry_run: Dry = False,
    actor: Actor = None,
    reason: OrderReason = None,
) -> int:
    """Export a month's events and payloads to a Parquet file.

    The file is read back, every hash is checked, and the export is recorded.
    """
    async with session.ledger() as ledger:
        if dry_run:
            return _write_plan(session, await ledger.archive.plan(month))
        folder = to or ledger.settings.archive
        if folder is None:
            raise ConfigurationError(
                "no folder for archives is known: give --to, or set RUNFOLD_ARCHIVE"
            )
        _write(
            session,
            await ledger.archive.export(month, folder, actor=actor, reason=reason),
            "exported",
        )
    return OK


@command(app, "detach", rights="owner", needs=OWNER)
async def detach(
    session: Session,
    month: Month,
    *,
    dry_run: Dry = False,
    actor: Actor = None,
    reason: OrderReason = None,
) -> int:
    """Detach an exported month from the database; it is then read from its file."""
    async with session.ledger() as ledger:
        if dry_run:
            return _write_plan(session, await ledger.archive.plan(month, detach=True))
        _write(
            session,
            await ledger.archive.detach(month, actor=actor, reason=reason),
            "detached",
        )
    return OK


@command(app, "attach", rights="owner", needs=OWNER)
async def attach(
    session: Session, month: Month, *, actor: Actor = None, reason: OrderReason = None
) -> None:
    """Attach a detached month: every event and payload returns to the database unchanged."""
    async with session.ledger() as ledger:
        _write(
            session,
            await ledger.archive.attach(month, actor=actor, reason=reason),
            "attached",
        )


def _write_plan(session: Session, plan: Any) -> int:
    if session.as_json:
        session.out.json(plan)
    else:
        for obstacle in plan.obstacles:
            session.out.line(f"obstacle: {obstacle}")
        session.out.line(
            f"{plan.month}: {number_of(plan.events, 'event')}; "
            f"{'nothing is changed' if plan.obstacles else 'ready'}"
        )
    return CONFLICT if plan.obstacles else OK


def _write(session: Session, archive: Archive, done: str) -> None:
    if session.as_json:
        session.out.json(_facts(archive))
        return
    session.out.line(
        f"{archive.month} is {done}: {number_of(archive.runs, 'run')}, "
        f"{number_of(archive.events, 'event')}, {number_of(archive.payloads, 'payload')}"
    )
    session.out.line(f"{archive.path}, {archive.size_bytes:,} bytes, sha256 {archive.sha256.hex()}")


def _facts(archive: Archive) -> dict[str, Any]:
    return {**asdict(archive), "file": archive.path}


archive_holds.register(app)
archive_check.register(app)
