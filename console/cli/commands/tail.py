"""`runfold tail`: the events of a project as they are committed."""

from __future__ import annotations

from typing import Annotated, Final

import typer
from rich.text import Text

from runfold.console.cli.kit import event_line
from runfold.console.cli.kit.options import command, program
from runfold.console.cli.kit.session import Session
from runfold.ledger.errors import CheckpointUnknown, UnknownKind
from runfold.ledger.reading.runs import require_kinds

app: Final = program()


@command(app, "tail", rights="read | audit")
async def tail(
    session: Session,
    *,
    kind: Annotated[
        list[str] | None,
        typer.Option("--kind", metavar="KIND", help="Only runs of this kind; may be repeated."),
    ] = None,
    state: Annotated[
        list[str] | None,
        typer.Option("--state", metavar="STATE", help="Only events that lead to this state."),
    ] = None,
    type_: Annotated[
        list[str] | None, typer.Option("--type", metavar="TYPE", help="Only events of this type.")
    ] = None,
    heartbeats: Annotated[bool, typer.Option("--heartbeats", help="Include heartbeats.")] = False,
    after: Annotated[
        str | None,
        typer.Option(
            "--after",
            metavar="CHECKPOINT",
            help="Continue where an earlier tail ended; `start` for all.",
        ),
    ] = None,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow/--no-follow", help="Continue until Ctrl-C, or end with the newest event."
        ),
    ] = True,
) -> None:
    """Print the events of all runs as they are committed.

    One event a line; each run's events are in order.
    """
    async with session.ledger() as ledger:
        events = ledger.subscribe(
            after=None if after == "start" else after or "now",
            types=type_ or None,
            kinds=kind or None,
            states=state or None,
            heartbeats=heartbeats,
            live=follow,
        )
        try:
            await require_kinds(ledger.pool, ledger.project_id, kind)
        except UnknownKind as error:
            session.out.talk(f"note: {error}")
        is_known = True
        try:
            async for event in events:
                if session.as_json:
                    session.out.json({**event.model_dump(), "checkpoint": events.checkpoint})
                else:
                    session.out.entry(
                        Text.assemble((f"{event.run_id} ", "dim"), event_line.head(event)),
                        event_line.facts(event),
                    )
        except CheckpointUnknown:
            is_known = False
            raise
        finally:
            if is_known and events.checkpoint is not None:
                session.out.talk(f"to continue from here: runfold tail --after {events.checkpoint}")
