"""`runfold runs`: list runs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from runfold.console.cli.kit.options import command
from runfold.console.cli.kit.output import COLOURS, EMPTY
from runfold.console.cli.kit.plain import money, span
from runfold.console.cli.kit.session import Session

if TYPE_CHECKING:
    from runfold.ledger import Run

TITLES = ("RUN", "KIND", "STATE", "TRY", "AGE", "WORKER", "COST", "ERROR")


async def runs(
    session: Session,
    *,
    states: Annotated[
        list[str] | None,
        typer.Option("--state", help="Only these states; may be repeated, or joined by commas."),
    ] = None,
    kind: Annotated[str | None, typer.Option("--kind", help="Only this kind.")] = None,
    worker: Annotated[
        str | None, typer.Option("--worker", help="Only what this worker holds.")
    ] = None,
    tag: Annotated[str | None, typer.Option("--tag", help="Only with this tag.")] = None,
    key: Annotated[str | None, typer.Option("--key", help="Only with this key.")] = None,
    limit: Annotated[int, typer.Option("--limit", help="At most this many, up to 10,000.")] = 20,
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
    """List runs, the newest first; as they are, or as they were."""
    from runfold.console.cli.kit.run_id import find_run
    from runfold.console.cli.kit.values import instant

    when = None if at is None else instant("--at", at)
    wanted = [one for given in states or [] for one in given.split(",")] or None
    async with session.ledger() as ledger:
        found = await ledger.runs(
            state=wanted,
            kind=kind,
            worker_id=worker,
            tag=tag,
            key=key,
            before=None if before is None else await find_run(ledger, before),
            limit=limit,
            at=when,
        )
    if session.as_json:
        for run in found:
            session.out.json(run)
        return
    if not found:
        session.out.talk(
            "no such runs"
            if any((wanted, kind, worker, tag, key, before, at))
            else "no runs yet: runfold submit KIND"
        )
        return
    now = when or datetime.now(UTC)
    session.out.table(
        TITLES, [row(run, now) for run in found], [COLOURS.get(run.state) for run in found]
    )
    if len(found) == limit:
        session.out.talk(f"there may be more: --before {found[-1].run_id}, or a larger --limit")


def row(run: Run, now: datetime) -> tuple[str, ...]:
    """Write a run as one row of the table."""
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


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "runs", panel="Runs")(runs)
