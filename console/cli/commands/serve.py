"""`runfold serve`: serve the HTTP API and the pages."""

from __future__ import annotations

import socket
from contextlib import AsyncExitStack
from typing import Annotated, Final

import typer

from runfold.console import web
from runfold.console.cli.kit.duty import until_terminated
from runfold.console.cli.kit.options import Host, Port, command, program
from runfold.console.cli.kit.session import Session
from runfold.console.shared.addresses import CONSOLE_PORT, shown_address
from runfold.console.web.options import Options, is_open
from runfold.ledger import Ledger
from runfold.ledger.errors import InvalidValue
from runfold.workers.process.worker_thread import when_it_answers

app: Final = program()


@command(app, "serve", rights="")
async def serve(
    session: Session,
    *,
    host: Host = "127.0.0.1",
    port: Port = CONSOLE_PORT,
    inherited: Annotated[
        int | None,
        typer.Option(
            "--socket",
            min=3,
            metavar="NUMBER",
            help="Listen on this inherited descriptor and on no address, as under a supervisor "
            "that keeps the socket: 3 under systemd.",
        ),
    ] = None,
) -> None:
    """Serve the HTTP API and the pages, until SIGTERM or Ctrl-C.

    Every request needs an API token, but for one machine in development: on a loopback address,
    and without RUNFOLD_ENV=production, a request without a token has the rights of this login.
    Needs the extra `web`.
    """
    own_socket = None if inherited is None else _socket(inherited)
    bound = host if own_socket is None else str(own_socket.getsockname()[0])
    ledger: Ledger | None = None
    async with AsyncExitStack() as stack:
        with until_terminated():
            ledger = await when_it_answers(session.duty, stack)
        if ledger is None:  # told to end while it waited for the database
            return
        open_here = is_open(bound, ledger.settings.env)
        application = web.app(ledger, Options(open=open_here))
        # It needs the extra, which `app` has found.
        from runfold.console.web.serving import Server, listening  # noqa: PLC0415

        with own_socket or listening(host, port) as listener:
            shown = shown_address(bound, listener)
            whom = "open to this machine" if open_here else "for those who sign in, and API tokens"
            session.out.begin(f"serving on {shown}, {whom}, until Ctrl-C")
            await Server(application).serve([listener])


def _socket(number: int) -> socket.socket:
    """Return an inherited socket; by its address the console is open, or asks people to sign in."""
    try:
        return socket.socket(fileno=number)
    except (OSError, OverflowError) as error:
        raise InvalidValue("--socket", number, "is not a socket of this process") from error
