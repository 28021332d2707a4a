"""`runfold signal`: send a run a value under a name."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from runfold.console.cli.kit.decision import write_state
from runfold.console.cli.kit.options import WORKER, Actor, RunId, command, program
from runfold.console.cli.kit.run_id import find_run
from runfold.console.cli.kit.session import Session
from runfold.console.shared.values import payload

app: Final = program()


@command(app, "signal", rights="submit", needs=WORKER)
async def signal(
    session: Session,
    run: RunId,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name that the run waits for.")],
    value: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[VALUE]...",
            help="key=text and key:=json pairs, or one JSON text, or - for standard input.",
        ),
    ] = None,
    *,
    key: Annotated[
        str | None,
        typer.Option("--key", metavar="KEY", help="The same key and value signal once."),
    ] = None,
    actor: Actor = None,
) -> None:
    """Send a run a value under a name.

    The value is kept until the run asks for it.
    """
    sent = payload(value or [], "value")
    async with session.ledger() as ledger:
        after = await ledger.signal(await find_run(ledger, run), name, sent, actor=actor, key=key)
    write_state(session.out, after)
    if after.available_at is None and not after.is_terminal:
        session.out.talk("kept until the run asks for it")
