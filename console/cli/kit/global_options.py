"""The options that every command takes, before its name or after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Final

import typer

PANEL: Final = "Options of every command"

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help="PostgreSQL URL, in the list of processes for all to see; else RUNFOLD_URL, else the"
        " built-in server.",
        rich_help_panel=PANEL,
    ),
]
Project = Annotated[
    str | None,
    typer.Option(
        "--project",
        metavar="NAME",
        help="Project; else RUNFOLD_PROJECT, else `default`.",
        rich_help_panel=PANEL,
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print JSON, one object a line; errors too.",
        rich_help_panel=PANEL,
    ),
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose",
        help="Log more; show where an unexpected error happened.",
        rich_help_panel=PANEL,
    ),
]


@dataclass(slots=True)
class Globals:
    """The options given before the command; those given after it win."""

    url: str | None = None
    project: str | None = None
    json: bool = False
    verbose: bool = False

    def merge(self, options: Mapping[str, Any]) -> None:
        """Take the options that have a value; an absent one leaves the earlier value."""
        for name in (field.name for field in fields(self)):
            if options[name] is not None and options[name] is not False:
                setattr(self, name, options[name])
