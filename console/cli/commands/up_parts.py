"""Everything that one machine needs, as processes of one command: see `runfold up`."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import webbrowser
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from runfold.console import web
from runfold.console.cli.kit.session import Session
from runfold.console.shared.addresses import shown_address
from runfold.console.web.options import is_open
from runfold.ledger.postgres.compatibility import check
from runfold.ledger.postgres.opening import Database, upgrade_if_older
from runfold.ledger.postgres.revisions import known
from runfold.ledger.settings import Settings
from runfold.workers.duties import webhooks
from runfold.workers.process.fleet import Fleet, Part, silence_of


@dataclass(frozen=True, slots=True)
class Console:
    """Where the pages and the API are served, and the project that they begin with."""

    project: str
    host: str
    listener: socket.socket

    @property
    def address(self) -> str:
        """The URL of the console."""
        return shown_address(self.host, self.listener)


def listening(host: str, port: int) -> socket.socket:
    """Return the socket of the console. Raises ConfigurationError, also without the extra `web`."""
    web.require()
    from runfold.console.web.serving import listening as listen  # noqa: PLC0415  needs the extra

    return listen(host, port)


@asynccontextmanager
async def ready_database(session: Session) -> AsyncIterator[Database]:
    """Open the chosen database with its schema up to date; start it if it is the built-in one.

    Raises LedgerError.
    """
    async with session.database(checked=False) as database:
        await upgrade_if_older(database.pool, database.url)
        await check(database.pool, known())
        yield database


async def stay_up(
    database: Database,
    console: Console,
    handlers: str | None,
    *,
    ready: Callable[[], None],
    beside: Coroutine[Any, Any, None] | None = None,
    settings: Mapping[str, str] | None = None,
) -> None:
    """Run the console, a reaper, projections, webhooks and a worker until SIGTERM or SIGINT.

    Each is a process; one that dies is named in the log and started again. `ready` is called when
    signals are handled. `beside` runs in this process meanwhile; `settings` are added to the
    environment of each process.
    """
    environment = {"RUNFOLD_URL": database.url, **(settings or {})}
    loaded = Settings.load()
    fleet = Fleet(
        _parts(console, handlers, loaded.env),
        environment,
        grace=loaded.grace_seconds,
        silence=silence_of(loaded.lease_ttl_seconds),
    )
    running = None if beside is None else asyncio.create_task(beside)
    try:
        await fleet.run(ready)
    finally:
        if running is not None:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


def _parts(console: Console, handlers: str | None, env: str) -> list[Part]:
    # The socket is this process's own, so that a browser waits while the console starts again.
    number = console.listener.fileno()
    words = {
        "console": ["serve", "--socket", str(number)],
        "reaper": ["reap"],
        "projections": ["projections", "run"],
    }
    if webhooks.is_installed():
        here = ["--allow-loopback"] if is_open(console.host, env) else []
        words["webhooks"] = ["webhooks", "run", "--console", console.address, *here]
    if handlers is not None:
        words["worker"] = ["worker", handlers, "--no-reap"]
    return [
        Part(
            name,
            ["--project", console.project, *each],
            sockets=(number,) if name == "console" else (),
            quiet=True,
        )
        for name, each in words.items()
    ]


def greet(session: Session, console: Console, what: str, *, has_browser: bool) -> None:
    """Print where the console is and what runs, and open it in a browser."""
    if session.as_json:
        session.out.json({"address": console.address, "project": console.project})
    session.out.talk(f"Runfold is up at {console.address}")
    session.out.talk(f"project {console.project}: {what}; Ctrl-C ends it")
    if has_browser:
        open_browser(console.address)


def open_browser(address: str) -> None:
    """Show the console in a browser of a desktop; a text browser would take the terminal."""
    has_display = sys.platform == "darwin" or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )
    if has_display:
        with suppress(webbrowser.Error, OSError):
            webbrowser.open(address)
