"""`runfold history`: every event of a run, as a version control log."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

import typer

from runfold.console.cli.kit import event_line
from runfold.console.cli.kit.options import RunId, command, program
from runfold.console.cli.kit.output import Output
from runfold.console.cli.kit.run_id import find_run
from runfold.console.cli.kit.session import Session
from runfold.ledger.events import Event
from runfold.ledger.lifecycle import TERMINAL

POLL_SECONDS: Final = 1.0
PAGE: Final = 50_000
"""Events that are read at a time: a run may have millions of heartbeats. For each page an archived
run is read from its file again."""


app: Final = program()


@command(app, "history", rights="read | work")
async def history(
    session: Session,
    run: RunId,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Continue until the run has ended, or Ctrl-C.")
    ] = False,
    heartbeats: Annotated[
        bool, typer.Option(help="Include heartbeats, most of a long run's events.")
    ] = True,
) -> None:
    """Print every event of a run.

    One event a line, in the order in which they happened.
    """
    async with session.ledger() as ledger:
        run_id = await find_run(ledger, run)
        version, ended = 0, False
        while True:
            events = await ledger.history(run_id, after=version, heartbeats=heartbeats, limit=PAGE)
            for event in events:
                _write(session.out, event)
                version = event.version
                ended = ended or event.state in TERMINAL
            if len(events) == PAGE:
                continue
            if ended or not follow:
                return
            await asyncio.sleep(POLL_SECONDS)


def _write(out: Output, event: Event) -> None:
    if out.as_json:
        out.json(event.model_dump())
    else:
        out.entry(event_line.head(event), event_line.facts(event))
