"""The options that every command takes, and how a command is made from a function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Final, TypeVar

import typer

from runfold.console.cli.kit.session import Session

_PANEL: Final = "Options of every command"

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help="PostgreSQL URL; else RUNFOLD_URL; else the built-in one.",
        rich_help_panel=_PANEL,
    ),
]
Project = Annotated[
    str | None,
    typer.Option(
        "--project",
        metavar="NAME",
        help="Project; else RUNFOLD_PROJECT; else `default`.",
        rich_help_panel=_PANEL,
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json", help="Data as JSON, one object a line; errors too.", rich_help_panel=_PANEL
    ),
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose", help="More log lines, and where defects happened.", rich_help_panel=_PANEL
    ),
]

RunId = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's id, or as much of it as is unique.")
]
Actor = Annotated[
    str | None,
    typer.Option(
        "--actor", metavar="NAME", help="Who does it; else RUNFOLD_ACTOR, else your login name."
    ),
]
Reason = Annotated[
    str | None, typer.Option("--reason", metavar="TEXT", help="Why; kept in the run's history.")
]


@dataclass(slots=True)
class Globals:
    """The options given before the command; those given after it win."""

    url: str | None = None
    project: str | None = None
    json: bool = False
    verbose: bool = False

    def merge(self, given: Mapping[str, Any]) -> None:
        """Take the options given now; none of them takes an earlier one back."""
        for name in (field.name for field in fields(self)):
            setattr(self, name, given[name] or getattr(self, name))


Body = TypeVar("Body", bound=Callable[..., Any])


def command(app: typer.Typer, name: str, *, panel: str | None = None) -> Callable[[Body], Body]:
    """Make a command of a function, async or not: it takes the session first, and may give the exit code."""

    def register(body: Body) -> Body:
        own = list(inspect.signature(body, eval_str=True).parameters.values())[1:]

        def call(context: typer.Context, **given: object) -> object:
            options: Globals = context.obj
            options.merge({name: given.pop(name) for name in _NAMES})
            session = Session(
                options.url, options.project, as_json=options.json, verbose=options.verbose
            )
            return session.run(body, given)

        parameters = [
            _keyword("context", typer.Context),
            *(p.replace(kind=p.KEYWORD_ONLY) for p in own),
            *_GLOBAL,
        ]
        call.__name__, call.__doc__ = body.__name__, body.__doc__
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {p.name: p.annotation for p in parameters}
        app.command(name, rich_help_panel=panel)(call)
        return body

    return register


def _keyword(
    name: str, annotation: object, default: object = inspect.Parameter.empty
) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


_NAMES: Final = ("url", "project", "json", "verbose")
_GLOBAL: Final = (
    _keyword("url", Url, None),
    _keyword("project", Project, None),
    _keyword("json", Json, False),  # noqa: FBT003  the default of a flag
    _keyword("verbose", Verbose, False),  # noqa: FBT003  the default of a flag
)
