"""`runfold state`: one run as it was."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from runfold.console.cli.kit.options import RunId, command, program
from runfold.console.cli.kit.run_details import write_run
from runfold.console.cli.kit.run_id import find_run
from runfold.console.cli.kit.session import Session
from runfold.console.shared.values import version_or_instant

app: Final = program()


@command(app, "state", rights="read | work | audit")
async def state(
    session: Session,
    run: RunId,
    *,
    at: Annotated[
        str,
        typer.Option(
            "--at",
            metavar="VERSION|TIME",
            help="After this event, or at this time (with its zone).",
        ),
    ],
) -> None:
    """Show a run as it was after an event or at a time.

    The state is the fold over the events up to that point.
    """
    point = version_or_instant(at)
    async with session.ledger() as ledger:
        run_id = await find_run(ledger, run)
        past = await ledger.state_at(run_id, point)
    write_run(session.out, past)
