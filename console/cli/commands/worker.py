"""`runfold worker`: run the handlers of a module, in one process or several."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Annotated, Final

import typer

from runfold.console.cli.kit.exits import OK, UNFINISHED, exit_code
from runfold.console.cli.kit.options import WORKER, command, program
from runfold.console.cli.kit.session import Session
from runfold.console.cli.kit.user_handlers import user_handlers
from runfold.console.shared import values
from runfold.ledger import Ledger
from runfold.workers import Worker
from runfold.workers.process.bounds import LEAVE_SECONDS
from runfold.workers.process.fleet import Fleet, Part, silence_of
from runfold.workers.process.last_resort import LastResort
from runfold.workers.process.serve import serve
from runfold.workers.process.worker_thread import when_it_answers

app: Final = program()


Handled = Annotated[
    str,
    typer.Argument(
        metavar="MODULE[:NAME]", help="The module with your handlers; with NAME only that handler."
    ),
]
Processes = Annotated[
    int, typer.Option("--processes", min=1, max=256, metavar="N", help="How many processes.")
]
Concurrency = Annotated[
    int,
    typer.Option(
        "--concurrency", min=1, max=10_000, metavar="N", help="Runs at a time, per process."
    ),
]
Kinds = Annotated[
    list[str] | None,
    typer.Option("--kinds", metavar="KIND", help="Only this kind of run; may be repeated."),
]
Grace = Annotated[
    str | None,
    typer.Option(
        "--grace", metavar="DURATION", help="How long runs may continue after SIGTERM or Ctrl-C."
    ),
]
NoReap = Annotated[bool, typer.Option("--no-reap", help="Do not reap; another process must.")]


@command(app, "worker", rights="work", needs=WORKER)
async def worker(
    session: Session,
    handlers: Handled,
    *,
    processes: Processes = 1,
    concurrency: Concurrency = 10,
    kinds: Kinds = None,
    grace: Grace = None,
    no_reap: NoReap = False,
) -> int:
    """Run a worker until SIGTERM or Ctrl-C.

    It then finishes its runs within the grace and gives the rest back; a second signal gives them
    back at once. Ten seconds after the grace, or two after a second signal, it ends whatever holds
    it up.
    """
    # Before any process starts, so that a mistake is reported once.
    loaded = user_handlers(handlers, as_json=session.as_json)
    seconds = values.duration("grace", grace)

    def make(ledger: Ledger) -> Worker:
        return Worker(
            ledger,
            loaded,
            concurrency=concurrency,
            kinds=kinds,
            grace=seconds,
            reap=not no_reap,
        )

    if processes == 1:
        return await _serve(session, make)
    session.out.talk(f"starting {processes} processes of {handlers}; Ctrl-C ends them")
    words = _child_words(session, handlers, concurrency, kinds, grace, no_reap=no_reap)
    async with AsyncExitStack() as stack:  # a ledger that cannot be opened is reported once, too
        made = make(await when_it_answers(session.ledger, stack))
        parts = [Part("worker", words)] * processes
        silence = silence_of(made.ledger.settings.lease_ttl_seconds)
        await Fleet(parts, _environment(session), grace=made.grace, silence=silence).run()
    return OK


async def _serve(session: Session, make: Callable[[Ledger], Worker]) -> int:
    """Run one worker in this process; return the exit code."""
    code = UNFINISHED
    try:
        is_clean = await serve(session.duty, make, lambda worker: _greet(session, worker))
        code = OK if is_clean else UNFINISHED
    except Exception as error:
        code = exit_code(error)
        raise
    finally:  # a thread that a handler left behind must not keep the process
        LastResort().within(LEAVE_SECONDS, code)
    return code


def _greet(session: Session, made: Worker) -> None:
    names = ", ".join(made.kinds)
    session.out.begin(
        f"{made.worker_id} serves {names} of project {made.ledger.project_id}, "
        f"{made.concurrency} at a time; Ctrl-C ends it"
    )


def _child_words(
    session: Session,
    handlers: str,
    concurrency: int,
    kinds: list[str] | None,
    grace: str | None,
    *,
    no_reap: bool,
) -> list[str]:
    """Return the words that start one process of several.

    The URL goes by the environment: it may hold a password.
    """
    words = ["worker", handlers, "--concurrency", str(concurrency)]
    for kind in kinds or []:
        words += ["--kinds", kind]
    words += ["--grace", grace] if grace is not None else []
    words += ["--project", session.project] if session.project is not None else []
    words += [
        flag
        for flag, wanted in (
            ("--no-reap", no_reap),
            ("--json", session.as_json),
            ("--verbose", session.verbose),
        )
        if wanted
    ]
    return words


def _environment(session: Session) -> dict[str, str]:
    return {} if session.url is None else {"RUNFOLD_URL": session.url}
