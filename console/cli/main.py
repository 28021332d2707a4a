"""The program `runfold`: its commands, its global options, and how it ends."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from typing import Annotated

import typer

from runfold.console.cli.commands import (
    approve as deciding,
)
from runfold.console.cli.commands import (
    archive as archiving,
)
from runfold.console.cli.commands import (
    db as database,
)
from runfold.console.cli.commands import demo as demonstration
from runfold.console.cli.commands import (
    diff as differing,
)
from runfold.console.cli.commands import (
    doctor,
    history,
    kinds,
    roles,
    runs,
    schedules,
)
from runfold.console.cli.commands import (
    drift as drifting,
)
from runfold.console.cli.commands import (
    metrics as metering,
)
from runfold.console.cli.commands import (
    project as projects,
)
from runfold.console.cli.commands import (
    projections as projecting,
)
from runfold.console.cli.commands import (
    reap as reaping,
)
from runfold.console.cli.commands import (
    show as showing,
)
from runfold.console.cli.commands import (
    submit as submitting,
)
from runfold.console.cli.commands import (
    tail as tailing,
)
from runfold.console.cli.commands import (
    trace as tracing,
)
from runfold.console.cli.commands import (
    verify as verifying,
)
from runfold.console.cli.commands import (
    whatif as judging,
)
from runfold.console.cli.commands import (
    worker as working,
)
from runfold.console.cli.kit.exits import BROKEN_PIPE, EPILOG, INTERRUPTED, OK
from runfold.console.cli.kit.failure import report
from runfold.console.cli.kit.options import Globals, Json, Project, Url, Verbose

app = typer.Typer(
    name="runfold",
    help="An event-sourced run ledger on PostgreSQL: every claim about a run, provable.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for module in (
    submitting,
    runs,
    showing,
    differing,
    history,
    tailing,
    tracing,
    deciding,
    working,
    verifying,
    drifting,
    reaping,
    judging,
    metering,
    doctor,
    demonstration,
):
    module.register(app)
app.add_typer(database.app, name="db")
app.add_typer(projects.app, name="project")
app.add_typer(projecting.app, name="projections")
app.add_typer(kinds.app, name="kinds")
app.add_typer(schedules.app, name="schedules")
app.add_typer(archiving.app, name="archive")
app.add_typer(roles.app, name="roles")


def _show_version(value: bool) -> None:  # noqa: FBT001  Typer calls it with the flag
    if value:
        from importlib.metadata import version

        sys.stdout.write(f"runfold {version('runfold')}\n")
        raise typer.Exit(OK)


Version = Annotated[
    bool,
    typer.Option(
        "--version", help="Say which version this is.", callback=_show_version, is_eager=True
    ),
]


@app.callback()
def root(
    context: typer.Context,
    *,
    url: Url = None,
    project: Project = None,
    json: Json = False,
    verbose: Verbose = False,
    version: Version = False,  # noqa: ARG001  its callback has answered
) -> None:
    """Take the options given before the command."""
    context.obj.merge({"url": url, "project": project, "json": json, "verbose": verbose})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; give its exit code. It raises nothing."""
    for stream, redirected in ((sys.stdout, redirect_stdout), (sys.stderr, redirect_stderr)):
        if stream is None:  # closed by the caller, who wants to hear nothing
            with open(os.devnull, "w") as nowhere, redirected(nowhere):
                return main(arguments)
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = Globals()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = typer.main.get_command(app)(
            given, prog_name="runfold", standalone_mode=False, obj=options
        )
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        return _without_reader()
    except SystemExit as ending:  # shell completion, and Click on a closed pipe
        return (
            _without_reader()
            if isinstance(ending.__context__, BrokenPipeError)
            else int(ending.code or 0)
        )
    except Exception as error:  # the one place where everything ends
        code = report(error, as_json=options.json or "--json" in given, verbose=options.verbose)
        try:
            sys.stdout.flush()
        except OSError:
            _drop_output()
    return int(code or OK)


def _without_reader() -> int:
    _drop_output()
    return BROKEN_PIPE


def _drop_output() -> None:
    # The interpreter flushes standard output once more at its end: give it somewhere to go.
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
