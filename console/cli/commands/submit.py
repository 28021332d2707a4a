"""`runfold submit`: submit a run."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from runfold.console.cli.kit.options import WORKER, Actor, command, program
from runfold.console.cli.kit.session import Session
from runfold.console.shared import values
from runfold.console.shared.plain import jsonable
from runfold.ledger import Submit
from runfold.ledger.errors import AccessDenied, RunNotFound

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[INPUT]...",
        help="key=text and key:=json pairs, or one JSON text, or - for standard input.",
    ),
]


app: Final = program()


@command(app, "submit", rights="submit", needs=WORKER)
async def submit(
    session: Session,
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="The kind of run; workers claim by it.")
    ],
    words: Words = None,
    *,
    key: Annotated[
        str | None,
        typer.Option(
            "--key",
            metavar="KEY",
            help="Idempotency key: the same key and content return the same run.",
        ),
    ] = None,
    priority: Annotated[
        int, typer.Option("--priority", metavar="N", help="0 goes first, larger numbers later.")
    ] = 0,
    delay: Annotated[
        str | None,
        typer.Option(
            "--delay", metavar="DURATION", help="Not claimable before: 30, 30s, 5m, 2h, 1d."
        ),
    ] = None,
    max_attempts: Annotated[
        int, typer.Option("--max-attempts", metavar="N", help="How often it may be tried.")
    ] = 3,
    deadline: Annotated[
        str | None,
        typer.Option(
            "--deadline", metavar="WHEN", help="Ends the run: a duration, or a time with zone."
        ),
    ] = None,
    tags: Annotated[
        list[str] | None,
        typer.Option("--tag", metavar="TAG", help="A tag to find it by; may be repeated."),
    ] = None,
    actor: Actor = None,
) -> None:
    """Submit a run and print its id."""
    request = Submit(
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
        (submission,) = await ledger.submit_many([request], actor=actor)
        try:
            run = await ledger.get(submission.run_id)
        except (AccessDenied, RunNotFound):  # made, for a login that may submit and not read
            run = None
    if session.as_json:
        seen = {"run_id": str(submission.run_id)} if run is None else jsonable(run)
        session.out.json({"created": submission.created, **seen})
        return
    session.out.line(str(submission.run_id))
    if run is None:
        session.out.talk("this login lacks the right read: it cannot see what becomes of the run")
    elif submission.created:
        session.out.talk(
            f"{run.kind} is {run.state}; to watch it: runfold history {run.run_id} --follow"
        )
    else:
        session.out.talk(
            f"nothing new: key {run.key} names this run, "
            f"which is {run.state} at version {run.version}"
        )
