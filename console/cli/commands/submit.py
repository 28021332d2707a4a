"""`runfold submit`: ask for a run."""

from __future__ import annotations

from typing import Annotated

import typer

from runfold.console.cli.kit.options import command
from runfold.console.cli.kit.plain import clean, jsonable
from runfold.console.cli.kit.session import Session

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT",
        help="key=text and key:=json pairs, or one JSON text, or - for standard input.",
    ),
]


async def submit(
    session: Session,
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="What kind of run; workers choose by it.")
    ],
    words: Words = None,
    *,
    key: Annotated[
        str | None, typer.Option("--key", help="The same key and content give the same run again.")
    ] = None,
    priority: Annotated[
        int, typer.Option("--priority", help="0 goes first, larger numbers later.")
    ] = 0,
    delay: Annotated[
        str | None,
        typer.Option(
            "--delay", metavar="DURATION", help="Not claimable before: 30, 30s, 5m, 2h, 1d."
        ),
    ] = None,
    max_attempts: Annotated[
        int, typer.Option("--max-attempts", help="How often it may be tried.")
    ] = 3,
    deadline: Annotated[
        str | None,
        typer.Option(
            "--deadline", metavar="WHEN", help="Ends the run: a duration, or a time with zone."
        ),
    ] = None,
    tags: Annotated[
        list[str] | None, typer.Option("--tag", help="A tag to find it by; may be repeated.")
    ] = None,
) -> None:
    """Ask for a run and print its id."""
    from runfold.console.cli.kit import values
    from runfold.ledger import Submit

    wanted = Submit(
        kind=kind,
        input=values.payload(words or []),
        key=key,
        priority=priority,
        delay=values.duration("delay", delay),
        max_attempts=max_attempts,
        deadline=values.deadline(deadline),
        tags=tuple(tags or ()),
    )
    async with session.ledger() as ledger:
        (submission,) = await ledger.submit_many([wanted])
        run = await ledger.get(submission.run_id)
    if session.as_json:
        session.out.json({"created": submission.created, **jsonable(run)})
        return
    session.out.line(str(run.run_id))
    if submission.created:
        session.out.talk(
            f"{clean(run.kind)} is {run.state}; to watch it: runfold history {run.run_id} --follow"
        )
    else:
        session.out.talk(
            f"nothing new: key {run.key!r} names this run, which is {run.state} at version {run.version}"
        )


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "submit", panel="Runs")(submit)
