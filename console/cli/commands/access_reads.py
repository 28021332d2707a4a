"""`runfold access reads|drop-reads`: who read the content of runs, by the API and the pages."""

from __future__ import annotations

from typing import Annotated

import typer

from runfold.console.cli.kit.options import OWNER, Actor, OrderReason, command
from runfold.console.cli.kit.run_id import find_run
from runfold.console.cli.kit.session import Session
from runfold.console.shared.values import day_or_instant
from runfold.ledger import payload_reads


async def reads(
    session: Session,
    *,
    run: Annotated[
        str | None, typer.Option("--run", metavar="RUN", help="Only of this run.")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", help="At most this many, up to 10,000.")
    ] = 100,
) -> None:
    """Show who read the content of which run by the API and the pages, the newest first."""
    async with session.ledger() as ledger:
        run_id = None if run is None else await find_run(ledger, run)
        listed = await payload_reads.reads(ledger.project, run_id=run_id, limit=limit)
    for entry in listed:
        if session.as_json:
            session.out.json(entry)
        else:
            session.out.line(
                f"{entry.read_at:%Y-%m-%d %H:%M} {entry.run_id} by"
                f" {entry.credential}: {entry.route}"
            )
    if not listed:
        session.out.talk("nobody read the content of a run by the API or the pages")


async def drop_reads(
    session: Session,
    before: Annotated[
        str,
        typer.Argument(
            metavar="TIME", help="In UTC, at least 184 days ago; those from before it are deleted."
        ),
    ],
    *,
    actor: Actor = None,
    reason: OrderReason = None,
) -> None:
    """Delete old records of who read what, on record in the control history."""
    async with session.ledger() as ledger:
        moment = day_or_instant("TIME", before)
        dropped = await payload_reads.drop_reads(ledger.project, moment, actor=actor, reason=reason)
    if session.as_json:
        session.out.json({"before": moment, "dropped": dropped})
    else:
        session.out.line(f"{dropped:,} records of reads from before {moment:%Y-%m-%d %H:%M} UTC")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "reads", rights="audit")(reads)
    command(app, "drop-reads", rights="owner", needs=OWNER)(drop_reads)
