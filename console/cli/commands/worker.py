"""`runfold worker`: do runs with the handlers of a module, in one process or several."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Annotated, Final

import typer

from runfold.console.cli.kit import values
from runfold.console.cli.kit.options import command, program
from runfold.console.cli.kit.session import Session
from runfold.ledger import Ledger
from runfold.workers import Worker
from runfold.workers.process.fleet import Fleet
from runfold.workers.process.loading import load
from runfold.workers.process.serve import serve, when_it_answers

app: Final = program()


@command(app, "worker")
async def worker(
    session: Session,
    handlers: Annotated[
        str,
        typer.Argument(
            metavar="MODULE[:NAME]", help="The module with your handlers; a name in it, if not all."
        ),
    ],
    *,
    processes: Annotated[
        int, typer.Option("--processes", min=1, max=256, help="So many processes.")
    ] = 1,
    concurrency: Annotated[
        int, typer.Option("--concurrency", min=1, max=10_000, help="Runs at a time, per process.")
    ] = 10,
    kinds: Annotated[
        list[str] | None,
        typer.Option("--kinds", metavar="KIND", help="Only this kind of run; may be repeated."),
    ] = None,
    grace: Annotated[
        str | None,
        typer.Option(
            "--grace", metavar="DURATION", help="How long runs may go on after SIGTERM or Ctrl-C."
        ),
    ] = None,
    no_reap: Annotated[
        bool, typer.Option("--no-reap", help="Leave the reaper's duty to others.")
    ] = False,
    child: Annotated[bool, typer.Option("--child", hidden=True)] = False,
) -> None:
    """Do runs until SIGTERM or Ctrl-C: then finish within the grace and give the rest back; a second one gives back at once."""

    def made(ledger: Ledger) -> Worker:
        return Worker(
            ledger,
            found,
            concurrency=concurrency,
            kinds=kinds,
            grace=values.duration("grace", grace),
            reap=not no_reap,
        )

    found = load(
        handlers
    )  # before any process starts, as the try below: what is wrong is said once
    if processes > 1:
        words = _again(session, handlers, concurrency, kinds, grace, no_reap=no_reap)
        async with AsyncExitStack() as stack:
            made(await when_it_answers(session.ledger, stack))
            await Fleet(words, processes, _environment(session)).run()
        return
    await serve(
        session.ledger, made, lambda worker: _greet(session, worker), until_input_closes=child
    )


def _greet(session: Session, made: Worker) -> None:
    names = ", ".join(made.kinds)
    session.out.talk(
        f"{made.worker_id} does {names} of project {made.ledger.project_id}, {made.concurrency} at a time; Ctrl-C ends it"
    )


def _again(
    session: Session,
    handlers: str,
    concurrency: int,
    kinds: list[str] | None,
    grace: str | None,
    *,
    no_reap: bool,
) -> list[str]:
    """Give the words that start one process of several; the URL goes by the environment, it may hold a password."""
    words = ["worker", handlers, "--child", "--concurrency", str(concurrency)]
    for kind in kinds or []:
        words += ["--kinds", kind]
    words += ["--grace", grace] if grace is not None else []
    words += ["--project", session.project] if session.project is not None else []
    words += [
        flag
        for flag, given in (
            ("--no-reap", no_reap),
            ("--json", session.as_json),
            ("--verbose", session.verbose),
        )
        if given
    ]
    return words


def _environment(session: Session) -> dict[str, str]:
    return {} if session.url is None else {"RUNFOLD_URL": session.url}
