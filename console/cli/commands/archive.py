"""`runfold archive`: whole months of events in files of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final
from uuid import UUID

import typer

from runfold.console.cli.kit.exits import CONFLICT, INTEGRITY, OK
from runfold.console.cli.kit.options import OWNER, Actor, command, program
from runfold.console.cli.kit.output import EMPTY
from runfold.console.cli.kit.plain import jsonable
from runfold.console.cli.kit.run_id import find_run
from runfold.console.cli.kit.session import Session
from runfold.ledger import Ledger
from runfold.ledger.archive import lifecycle as archiving
from runfold.ledger.archive.file import check_file, digest
from runfold.ledger.archive.reading import Archive
from runfold.ledger.errors import ConfigurationError
from runfold.ledger.months import is_month

app: Final = program("Export, detach and attach whole months of events.")

Month = Annotated[
    str,
    typer.Argument(metavar="MONTH", help="A month in which runs were submitted, such as 2026-01."),
]
Target = Annotated[
    str, typer.Argument(metavar="MONTH|RUN", help="A month such as 2026-01, or a run.")
]
Why = Annotated[
    str | None,
    typer.Option("--reason", metavar="TEXT", help="The reason, kept in the archive's history."),
]
Because = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="The reason, kept in the archive's history.")
]
Dry = Annotated[
    bool,
    typer.Option("--dry-run", help="Only list the obstacles; exit code 6 if there is one."),
]


@command(app, "list")
async def list_(session: Session) -> None:
    """List the months of the database and of the archive, all projects together."""
    async with session.database() as database:
        listed = await archiving.months(database.pool)
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


@command(app, "export", needs=OWNER)
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
    reason: Why = None,
) -> int:
    """Export a month's events and payloads to a Parquet file.

    The file is read back, every hash is checked, and the export is recorded.
    """
    async with session.ledger() as ledger:
        if dry_run:
            return _write_plan(session, await archiving.plan(ledger.pool, month))
        folder = to or ledger.settings.archive
        if folder is None:
            raise ConfigurationError(
                "no folder for archives is known: give --to, or set RUNFOLD_ARCHIVE"
            )
        _write(
            session,
            await archiving.export(
                ledger.pool, month, folder, actor=actor or ledger.actor, reason=reason
            ),
            "exported",
        )
    return OK


@command(app, "detach", needs=OWNER)
async def detach(
    session: Session, month: Month, *, dry_run: Dry = False, actor: Actor = None, reason: Why = None
) -> int:
    """Detach an exported month from the database; it is then read from its file."""
    async with session.ledger() as ledger:
        if dry_run:
            return _write_plan(session, await archiving.plan(ledger.pool, month, detach=True))
        _write(
            session,
            await archiving.detach(ledger.pool, month, actor=actor or ledger.actor, reason=reason),
            "detached",
        )
    return OK


@command(app, "attach", needs=OWNER)
async def attach(
    session: Session, month: Month, *, actor: Actor = None, reason: Why = None
) -> None:
    """Attach a detached month: every event and payload returns to the database unchanged."""
    async with session.ledger() as ledger:
        _write(
            session,
            await archiving.attach(ledger.pool, month, actor=actor or ledger.actor, reason=reason),
            "attached",
        )


@command(app, "hold", needs=OWNER)
async def hold(session: Session, target: Target, *, reason: Because, actor: Actor = None) -> None:
    """Hold a month, or the month of a run: it is not exported or detached until released."""
    await _hold(session, target, actor, reason, placed=True)


@command(app, "release", needs=OWNER)
async def release(
    session: Session, target: Target, *, reason: Because, actor: Actor = None
) -> None:
    """Release a hold."""
    await _hold(session, target, actor, reason, placed=False)


@command(app, "history")
async def history(
    session: Session,
    month: Annotated[str | None, typer.Argument(metavar="[MONTH]", help="Only this month.")] = None,
) -> None:
    """Show who exported, detached, attached, held and released what, when and why."""
    async with session.database() as database:
        events = await archiving.history(database.pool, month)
    for event in events:
        if session.as_json:
            session.out.json({name: value for name, value in event.items() if value is not None})
        else:
            session.out.line(_line(event))
    if not events:
        session.out.talk("nothing was archived or held")


@command(app, "check")
def check(
    session: Session,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="An exported file.")
    ],
) -> int:
    """Check every hash in an exported file, without a database; prints the file's SHA-256."""
    chain = check_file(file)
    size, sha256 = digest(file)
    facts = {"runs": chain.runs, "events": chain.events, "payloads": chain.payloads}
    if session.as_json:
        session.out.json(
            {
                "ok": not chain.findings,
                **facts,
                "size_bytes": size,
                "sha256": sha256.hex(),
                "findings": jsonable(chain.findings),
            }
        )
    else:
        for finding in chain.findings:
            session.out.line(
                f"bad: run {finding.run_id} #{finding.version} {finding.problem}: {finding.detail}"
            )
        counts = ", ".join(f"{count:,} {what}" for what, count in facts.items())
        session.out.line(f"{'FAILED' if chain.findings else 'ok'}: {counts}; sha256 {sha256.hex()}")
    return INTEGRITY if chain.findings else OK


async def _hold(
    session: Session, target: str, actor: str | None, reason: str, *, placed: bool
) -> None:

    async with session.ledger() as ledger:
        what = await _target(ledger, target)
        await archiving.hold(
            ledger.pool, what, actor=actor or ledger.actor, reason=reason, placed=placed
        )
    change = {"placed" if placed else "released": what if isinstance(what, str) else what[1]}
    session.out.json(change) if session.as_json else session.out.line(
        "".join(f"hold {how}: {of}" for how, of in change.items())
    )


async def _target(ledger: Ledger, text: str) -> str | tuple[str, UUID]:

    return text if is_month(text) else (ledger.project_id, await find_run(ledger, text))


def _write_plan(session: Session, plan: Any) -> int:
    if session.as_json:
        session.out.json(plan)
    else:
        for obstacle in plan.obstacles:
            session.out.line(f"obstacle: {obstacle}")
        session.out.line(
            f"{plan.month}: {plan.events:,} events; "
            f"{'nothing is changed' if plan.obstacles else 'ready'}"
        )
    return CONFLICT if plan.obstacles else OK


def _write(session: Session, archive: Archive, done: str) -> None:
    if session.as_json:
        session.out.json(_facts(archive))
        return
    session.out.line(
        f"{archive.month} is {done}: {archive.runs:,} runs, {archive.events:,} events, "
        f"{archive.payloads:,} payloads"
    )
    session.out.line(f"{archive.path}, {archive.size_bytes:,} bytes, sha256 {archive.sha256.hex()}")


def _facts(archive: Archive) -> dict[str, Any]:
    return {**asdict(archive), "sha256": archive.sha256.hex(), "file": str(archive.path)}


def _line(event: Mapping[str, Any]) -> str:
    of = "" if event["run_id"] is None else f" run {event['run_id']} of {event['project_id']}"
    proof = (
        ""
        if event["sha256"] is None
        else f" {event['events']:,} events, sha256 {event['sha256'].hex()}"
    )
    why = "" if event["reason"] is None else f": {event['reason']}"
    return (
        f"{event['number']} {event['recorded_at']:%Y-%m-%d %H:%M:%S} {event['month']} "
        f"{event['type']} "
        f"{event['actor']}{of}{proof}{why}"
    )
