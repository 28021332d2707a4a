"""One call of the program: its options, its output, and the ledger or database it opens."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import structlog
from structlog.typing import Processor

from runfold.console.cli.kit.output import Output
from runfold.console.cli.kit.rights import check
from runfold.console.cli.kit.unknown_settings import unknown_settings
from runfold.console.shared.known_errors import known
from runfold.console.shared.plain import clean
from runfold.console.shared.values import Misuse
from runfold.ledger import Ledger
from runfold.ledger.access import EVERYWHERE
from runfold.ledger.errors import AccessDenied
from runfold.ledger.log import Lines
from runfold.ledger.operations.project import Project
from runfold.ledger.postgres.access_holes import warn_of_holes
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.postgres.opening import SPEAKER, Database, opened
from runfold.ledger.redaction import Redaction
from runfold.ledger.settings import Settings


class Session:
    """What a command works with; it opens the ledger or database only on request."""

    def __init__(
        self,
        url: str | None,
        project: str | None,
        *,
        as_json: bool,
        verbose: bool,
        rights: str = "",
    ) -> None:
        """`rights` is the rule that the login must meet, checked when something is opened."""
        self.url, self.project = url, project
        self.as_json, self.verbose = as_json, verbose
        self._rights = rights
        self.out = Output(as_json=as_json)

    def run(
        self, body: Callable[..., object], arguments: Mapping[str, object], needs: str | None
    ) -> object:
        """Run a command to its end and return its result.

        `needs` says which privilege the command takes; a login that lacks it reads that.
        """
        configure_log(as_json=self.as_json, verbose=self.verbose)
        for line in unknown_settings(os.environ):
            self.out.talk(f"warning: {line}")
        try:
            result = body(self, **arguments)
            return asyncio.run(result) if inspect.iscoroutine(result) else result
        except Exception as error:
            denied = known(error)
            if not isinstance(denied, AccessDenied) or needs is None:
                raise
            if denied.remedy != AccessDenied.ROLES:  # it has the role, and lacks a right
                raise
            denied.args = (f"{denied.reason}: {needs}",)
            raise denied from error

    def _chosen_url(self) -> str | None:
        for name, value in (("--url", self.url), ("RUNFOLD_URL", os.environ.get("RUNFOLD_URL"))):
            if value == "":
                raise Misuse(name, "is empty: leave it out for the built-in server, or give a URL")
        return self.url

    @asynccontextmanager
    async def ledger(self) -> AsyncIterator[Ledger]:
        """Open the ledger of the chosen project. Raises AccessDenied without the rights."""
        async with Ledger.open(self._chosen_url(), self.project) as ledger:
            await check(ledger.pool, self._rights, ledger.project_id)
            yield ledger

    @asynccontextmanager
    async def all_projects(self) -> AsyncIterator[Project]:
        """Open the database for a command that is of no project, whichever are there.

        Raises AccessDenied without the rights.
        """
        async with self.database() as database:
            [row] = await fetch(database.pool, SPEAKER)
            yield Project(database.pool, EVERYWHERE, Settings.load(), row["speaker"])

    @asynccontextmanager
    async def duty(self) -> AsyncIterator[Ledger]:
        """Open the ledger for a command that runs until a signal, and log holes in access."""
        async with self.ledger() as ledger:
            await warn_of_holes(ledger.pool, production=ledger.settings.env == "production")
            yield ledger

    @asynccontextmanager
    async def database(self, *, checked: bool = True) -> AsyncIterator[Database]:
        """Open the chosen database, without a project; its schema may be any unless `checked`.

        Raises AccessDenied without the rights, which a schema of another time may not know.
        """
        async with opened(self._chosen_url(), Settings.load(), checked=checked) as database:
            if checked:
                await check(database.pool, self._rights)
            yield database


def configure_log(*, as_json: bool, verbose: bool) -> None:
    """Send the log to standard error: warnings and errors, with `verbose` also information."""
    colours = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    renderer: Processor = structlog.processors.JSONRenderer(default=str)
    if not as_json:
        renderer = structlog.dev.ConsoleRenderer(colors=colours)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _cleaned,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.INFO if verbose else logging.WARNING
        ),
        # Standard error at the time of the log line, not at the time of this call.
        logger_factory=lambda *_: Lines(sys.stderr),
        cache_logger_on_first_use=False,
    )


def _cleaned(_logger: object, _method: str, values: MutableMapping[str, Any]) -> Mapping[str, Any]:
    return {
        clean(name): value if isinstance(value, int | float) else _cleaned_value(name, value)
        for name, value in values.items()
    }


def _cleaned_value(name: str, value: object) -> str:
    if name != "exception":
        return clean(value)
    # A traceback has lines of its own, and may quote what a program was given.
    return clean(Redaction().text(str(value), name), multiline=True)
