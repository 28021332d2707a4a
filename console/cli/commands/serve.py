"""`runfold serve`: serve the HTTP API and the pages."""

from __future__ import annotations

import socket
from typing import Annotated, Final

import typer

from runfold.console import web
from runfold.console.cli.kit.options import command, program
from runfold.console.cli.kit.session import Session
from runfold.console.shared.addresses import CONSOLE_PORT, shown_address
from runfold.console.web.options import Options, is_loopback

app: Final = program()


@command(app, "serve")
async def serve(
    session: Session,
    *,
    host: Annotated[
        str, typer.Option("--host", metavar="HOST", help="The address to listen on.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65_535, metavar="PORT", help="0 takes any free one.")
    ] = CONSOLE_PORT,
    inherited: Annotated[int | None, typer.Option("--socket", hidden=True)] = None,
) -> None:
    """Serve the HTTP API and the pages, until SIGTERM or Ctrl-C.

    Every request needs an API token, but for one machine in development: on a loopback address,
    and without RUNFOLD_ENV=production, a request without a token has the rights of this login.
    Needs the extra `web`.
    """
    async with session.duty() as ledger:
        is_open = is_loopback(host) and ledger.settings.env == "development"
        application = web.app(ledger, Options(open=is_open))
        # It needs the extra, which `app` has found.
        from runfold.console.web.serving import Server, listening  # noqa: PLC0415

        made = listening(host, port) if inherited is None else socket.socket(fileno=inherited)
        with made as listener:
            shown = shown_address(host, listener)
            whom = "open to this machine" if is_open else "for API tokens only"
            session.out.begin(f"serving on {shown}, {whom}, until Ctrl-C")
            await Server(application).serve([listener])
