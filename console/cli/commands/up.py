"""`runfold up`: database, console, worker, reaper and projections in one command."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Final

import typer

from runfold.console.cli.commands.up_parts import (
    Console,
    greet,
    listening,
    ready_database,
    stay_up,
)
from runfold.console.cli.kit.options import OWNER, Host, Port, command, program
from runfold.console.cli.kit.session import Session
from runfold.console.cli.kit.user_handlers import user_handlers
from runfold.console.shared.addresses import CONSOLE_PORT
from runfold.ledger.settings import Settings
from runfold.workers.duties import webhooks

app: Final = program()

Handled = Annotated[
    str | None,
    typer.Argument(
        metavar="[MODULE[:NAME]]",
        help="The module with your handlers, for a worker; with NAME only that handler.",
    ),
]
NoBrowser = Annotated[bool, typer.Option("--no-browser", help="Open no browser.")]


@command(app, "up", rights="owner", needs=OWNER)
async def up(
    session: Session,
    handlers: Handled = None,
    *,
    host: Host = "127.0.0.1",
    port: Port = CONSOLE_PORT,
    no_browser: NoBrowser = False,
) -> None:
    """Run everything on this machine, until SIGTERM or Ctrl-C.

    The built-in PostgreSQL (or that of --url, whose schema is brought up to date), the HTTP API and
    the pages, a reaper, the projections, the sender of webhooks, and a worker for your handlers.
    Each is a process: one that dies is named and started again. On a loopback address in
    development nobody signs in, and webhooks may lead to this machine. Needs the extra `web`.
    """
    if handlers is not None:
        # Before any process starts, so that a mistake is reported once.
        user_handlers(handlers, as_json=session.as_json)
    project = session.project or Settings.load().project
    with listening(host, port) as listener:
        async with ready_database(session) as database:
            if project not in await database.projects():
                await database.create_project(project)
            console = Console(project, host, listener)
            worker = f"a worker for {handlers}" if handlers else "no worker (name your module)"
            without = "no webhooks (install runfold[webhooks])"
            sent = "webhooks" if webhooks.is_installed() else without
            what = f"a console, a reaper, projections, {sent}, {worker}"
            ready = partial(greet, session, console, what, has_browser=not no_browser)
            await stay_up(database, console, handlers, ready=ready)
