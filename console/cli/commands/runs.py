"""`runfold runs`: list runs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final

import typer

from runfold.console.cli.kit.options import command, program
from runfold.console.cli.kit.output import COLOURS, EMPTY
from runfold.console.cli.kit.plain import money, span
from runfold.console.cli.kit.run_id import find_run
from runfold.console.cli.kit.session import Session
from runfold.console.cli.kit.values import instant
from runfold.ledger import Run

TITLES = ("RUN", "KIND", "STATE", "TRY", "AGE", "WORKER", "COST", "ERROR")


app: Final = program()


@command(app, "runs")
async def runs(
    session: Session,
    *,
    states: Annotated[
        list[str] | None,
        typer.Option(
            "--state",
            metavar="STATE",
            help="Only these states; may be repeated, or joined by commas.",
        ),
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--kind", metavar="KIND", help="Only this kind.")
    ] = None,
    worker: Annotated[
        str | None, typer.Option("--worker", metavar="NAME", help="Only what this worker holds.")
    ] = None,
    tag: Annotated[
        str | None, typer.Option("--tag", metavar="TAG", help="Only with this tag.")
    ] = None,
    key: Annotated[
        str | None, typer.Option("--key", metavar="KEY", help="Only with this key.")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", help="At most this many, up to 10,000.")
    ] = 20,
    before: Annotated[
        str | None,
        typer.Option(
            "--before", metavar="RUN", help="Continue after the last run of an earlier page."
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="TIME", help="As they were at this time (with its zone)."),
    ] = None,
) -> None:
    """List runs, the newest first.

    With --at as they were at that time.
    """
    point = None if at is None else instant("--at", at)
    state_names = [name for text in states or [] for name in text.split(",")] or None
    async with session.ledger() as ledger:
        found = await ledger.runs(
            state=state_names,
            kind=kind,
            worker_id=worker,
            tag=tag,
            key=key,
            before=None if before is None else await find_run(ledger, before),
            limit=limit,
            at=point,
        )
    if session.as_json:
        for run in found:
            session.out.json(run)
        return
    if not found:
        session.out.talk(
            "no such runs"
            if any((state_names, kind, worker, tag, key, before, at))
            else "no runs yet: runfold submit KIND"
        )
        return
    now = point or datetime.now(UTC)
    session.out.table(
        TITLES, [row(run, now) for run in found], [COLOURS.get(run.state) for run in found]
    )
    if len(found) == limit:
        session.out.talk(f"there may be more: --before {found[-1].run_id}, or a larger --limit")


def row(run: Run, now: datetime) -> tuple[str, ...]:
    """Return a run as one row of the table."""
    return (
        str(run.run_id),
        run.kind,
        run.state,
        f"{run.attempt_count}/{run.max_attempts}",
        span(now - run.created_at),
        run.worker_id or EMPTY,
        money(run.cost_usd),
        run.error_code or EMPTY,
    )
