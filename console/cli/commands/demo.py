"""`runfold demo`: the demonstration of `runfold.console.demo`."""

from __future__ import annotations

from collections.abc import Coroutine
from functools import partial
from typing import Annotated, Any, Final

import typer

from runfold.console.cli.commands.up import NoBrowser
from runfold.console.cli.commands.up_parts import (
    Console,
    greet,
    listening,
    ready_database,
    stay_up,
)
from runfold.console.cli.kit.options import Host, Port, command, program
from runfold.console.cli.kit.session import Session
from runfold.console.demo import reviews
from runfold.console.demo.main import run, silence_log
from runfold.console.demo.story import new_project
from runfold.console.shared.addresses import CONSOLE_PORT
from runfold.ledger.errors import InvalidValue

app: Final = program()


@command(app, "demo", rights="")
def demo(
    session: Session,
    *,
    web: Annotated[
        bool, typer.Option("--web", help="Show it in a browser, with runs to watch and decide.")
    ] = False,
    host: Host = "127.0.0.1",
    port: Port = CONSOLE_PORT,
    no_browser: NoBrowser = False,
) -> int | Coroutine[Any, Any, None]:
    """See the ledger at work: a crash, an approval, the proof.

    Three workers measure the files of Python's standard library; one of them is killed. With --web
    the pages show it, and runs go on until SIGTERM or Ctrl-C, some of them for you to approve.
    """
    for option, value in (("--url", session.url), ("--project", session.project)):
        if value is not None:
            raise InvalidValue(
                option,
                value,
                "leave it out: the demo uses the built-in database and its own project",
            )
    if web:
        return _with_pages(session, host, port, has_browser=not no_browser)
    return run(json=session.as_json, verbose=session.verbose)


async def _with_pages(session: Session, host: str, port: int, *, has_browser: bool) -> None:
    if not session.verbose:
        silence_log()
    with listening(host, port) as listener:
        async with ready_database(session) as database:
            console = Console(await new_project(database), host, listener)
            what = "a worker is killed, runs go on, and some wait for you"
            ready = partial(greet, session, console, what, has_browser=has_browser)
            beside = reviews.play_and_review(database, console.project)
            await stay_up(
                database,
                console,
                reviews.HANDLERS,
                ready=ready,
                beside=beside,
                settings=reviews.SETTINGS,
            )
