"""`runfold history`: every event of a run, like the log of a repository."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Final

import typer

from runfold.console.cli.kit import event_line
from runfold.console.cli.kit.options import RunId, command
from runfold.console.cli.kit.output import Output
from runfold.console.cli.kit.session import Session

if TYPE_CHECKING:
    from runfold.ledger.events import Event

POLL_SECONDS: Final = 1.0


async def history(
    session: Session,
    run: RunId,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the run has ended, or Ctrl-C.")
    ] = False,
    heartbeats: Annotated[
        bool, typer.Option(help="With the heartbeats, nearly all events of a long run.")
    ] = True,
) -> None:
    """Print every event of a run, one a line, in the order in which they happened."""
    from runfold.console.cli.kit.run_id import find_run
    from runfold.ledger.lifecycle import TERMINAL

    async with session.ledger() as ledger:
        wanted = await find_run(ledger, run)
        version, ended = 0, False
        while True:
            for event in await ledger.history(wanted, after=version, heartbeats=heartbeats):
                _write(session.out, event)
                version = event.version
                ended = ended or event.state in TERMINAL
            if ended or not follow:
                return
            await asyncio.sleep(POLL_SECONDS)


def _write(out: Output, event: Event) -> None:
    if out.as_json:
        out.json(event_line.as_json(event))
    else:
        out.line(event_line.line(event))


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "history", panel="Runs")(history)
