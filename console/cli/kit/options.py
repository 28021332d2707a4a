"""The options and arguments that many commands share, and how a function becomes a command."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Final, TypeVar

import typer

from runfold.console.cli.kit import rights as rights_of
from runfold.console.cli.kit.global_options import Globals, Json, Project, Url, Verbose
from runfold.console.cli.kit.help import HelpCommand, HelpGroup
from runfold.console.cli.kit.session import Session
from runfold.ledger.validation import check_actor


def _checked_actor(value: str | None) -> str | None:
    return None if value is None else check_actor(value, "--actor")


RunId = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's id, or a unique beginning of it.")
]
Actor = Annotated[
    str | None,
    typer.Option(
        "--actor",
        metavar="NAME",
        callback=_checked_actor,
        help="Your name in the record; else RUNFOLD_ACTOR, else your login name.",
    ),
]
Reason = Annotated[
    str | None,
    typer.Option("--reason", metavar="TEXT", help="The reason, kept in the run's history."),
]
Ahead = Annotated[bool, typer.Option("--ahead", help="The kind is new: it has no run yet.")]
OrderReason = Annotated[
    str | None,
    typer.Option("--reason", metavar="TEXT", help="The reason, kept in the control history."),
]
Host = Annotated[str, typer.Option("--host", metavar="HOST", help="The address to listen on.")]
Port = Annotated[
    int, typer.Option("--port", min=0, max=65_535, metavar="PORT", help="0 takes any free one.")
]
RequiredReason = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="The reason, kept in the control history.")
]

Body = TypeVar("Body", bound=Callable[..., Any])


def program(help_text: str | None = None) -> typer.Typer:
    """Return what commands register with: of one command, or with `help_text` of a group."""
    if help_text is None:
        return typer.Typer(add_completion=False)
    return typer.Typer(cls=HelpGroup, help=help_text, no_args_is_help=True, add_completion=False)


OWNER: Final = rights_of.OWNERS
PROJECTOR: Final = "the login needs the role runfold_projector: GRANT runfold_projector TO login"
REBUILDER: Final = (
    "the login needs the role runfold_projector: GRANT runfold_projector TO login; run_state is "
    "rebuilt by the owner of the schema"
)
WORKER: Final = "the login needs the role runfold_worker: GRANT runfold_worker TO login"
"""What commands need, said to a login that lacks it."""


def command(
    app: typer.Typer, name: str, *, rights: str, needs: str | None = None
) -> Callable[[Body], Body]:
    """Make a command of a function, async or not.

    The function takes the session first and returns the exit code; None is 0. `rights` is the rule
    that the login must meet, see `kit.rights`. `needs` says which privilege the command takes; a
    login that lacks it reads that.
    """

    def register(body: Body) -> Body:
        own = list(inspect.signature(body, eval_str=True).parameters.values())[1:]

        def call(context: typer.Context, **arguments: object) -> object:
            options: Globals = context.obj
            options.merge({name: arguments.pop(name) for name in _NAMES})
            session = Session(
                options.url,
                options.project,
                as_json=options.json,
                verbose=options.verbose,
                rights=rights,
            )
            return session.run(body, arguments, needs)

        parameters = [
            _keyword("context", typer.Context),
            *(p.replace(kind=p.KEYWORD_ONLY) for p in own),
            *_GLOBAL,
        ]
        call.__name__, call.__doc__ = body.__name__, body.__doc__
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {p.name: p.annotation for p in parameters}
        call.rights = rights  # type: ignore[attr-defined]
        app.command(name, cls=HelpCommand, epilog=rights_of.sentence(rights))(call)
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
