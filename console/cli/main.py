"""The program `runfold`: its commands, its global options, and how it ends."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from typing import Annotated, ClassVar, Final

import typer

from runfold.console.cli.kit.exits import BROKEN_PIPE, EPILOG, INTERRUPTED, OK
from runfold.console.cli.kit.failure import report
from runfold.console.cli.kit.global_options import Globals, Json, Project, Url, Verbose
from runfold.console.cli.kit.lazy import Entry, LazyGroup
from runfold.version import __version__

_EXAMPLES: Final = """Examples:
  runfold up                      a ledger with its pages, on this machine
  runfold demo                    see a worker killed and nothing lost
  runfold submit parse path=a.py  submit a run of kind `parse`
  runfold worker app              work with the handlers of the module `app`
  runfold history RUN --follow    watch a run
  runfold doctor                  check server, schema and workers
"""

_START: Final = "Start here"
_RUNS: Final = "Runs"
_DECISIONS: Final = "Decisions"
_OPERATIONS: Final = "Operations"
_ADMINISTRATION: Final = "Administration"


def _entry(panel: str, name: str, help_line: str) -> Entry:
    return Entry(name, f"runfold.console.cli.commands.{name}", help_line, panel)


class Program(LazyGroup):
    """All commands, in the order of the help."""

    entries: ClassVar[tuple[Entry, ...]] = (
        _entry(_START, "up", "Run everything on this machine, until SIGTERM or Ctrl-C."),
        _entry(_START, "demo", "See the ledger at work: a crash, an approval, the proof."),
        _entry(_RUNS, "submit", "Submit a run and print its id."),
        _entry(_RUNS, "rerun", "Run ended runs again, each as a new run linked to the old one."),
        _entry(_RUNS, "runs", "List runs, the newest first."),
        _entry(_RUNS, "show", "Show a run and what can be done next."),
        _entry(_RUNS, "state", "Show a run as it was after an event or at a time."),
        _entry(_RUNS, "diff", "Show what changed in a run between two points."),
        _entry(_RUNS, "history", "Print every event of a run."),
        _entry(_RUNS, "tail", "Print the events of all runs as they are committed."),
        _entry(_RUNS, "trace", "Show a run as a trace, or send it to OpenTelemetry."),
        _entry(_DECISIONS, "approvals", "List the approvals that runs wait for, the oldest first."),
        _entry(_DECISIONS, "approve", "Grant the approval that a run waits for."),
        _entry(_DECISIONS, "reject", "Reject the approval that a run waits for."),
        _entry(
            _DECISIONS, "snooze", "Keep a request for an approval out of your list for a while."
        ),
        _entry(_DECISIONS, "signal", "Send a run a value under a name."),
        _entry(_DECISIONS, "cancel", "Cancel a run, or every run that fits a query."),
        _entry(_OPERATIONS, "worker", "Run a worker until SIGTERM or Ctrl-C."),
        _entry(_OPERATIONS, "workers", "List the workers that hold runs."),
        _entry(_OPERATIONS, "top", "Show what is alive, on one screen that renews itself."),
        _entry(_OPERATIONS, "reap", "Repair runs whose worker died, until SIGTERM or Ctrl-C."),
        _entry(_OPERATIONS, "export", "Write evidence of runs, to be read and checked offline."),
        _entry(_OPERATIONS, "doctor", "Check the ledger's health and name remedies."),
        _entry(_OPERATIONS, "verify", "Check the ledger's proofs and states."),
        _entry(_OPERATIONS, "drift", "Compare stored states with the fold of their events."),
        _entry(_OPERATIONS, "whatif", "Replay recorded leases under another policy."),
        _entry(_OPERATIONS, "serve", "Serve the HTTP API and the pages, until SIGTERM or Ctrl-C."),
        _entry(_OPERATIONS, "mcp", "Serve an agent's questions over standard input and output."),
        _entry(_OPERATIONS, "metrics", "Serve metrics for Prometheus."),
        _entry(_ADMINISTRATION, "db", "Upgrade the database's schema; show its status and URL."),
        _entry(_ADMINISTRATION, "project", "Create and list projects."),
        _entry(_ADMINISTRATION, "projections", "Run, inspect and rebuild projections."),
        _entry(_ADMINISTRATION, "kinds", "Pause, resume and limit kinds of runs."),
        _entry(_ADMINISTRATION, "schedules", "Submit runs by cron expressions."),
        _entry(_ADMINISTRATION, "webhooks", "Send events to URLs, with signatures."),
        _entry(_ADMINISTRATION, "roles", "Grant and revoke the roles that approvals ask for."),
        _entry(_ADMINISTRATION, "access", "Show and grant what logins and API tokens may do."),
        _entry(_ADMINISTRATION, "users", "Manage who signs in to the pages."),
        _entry(_ADMINISTRATION, "archive", "Export, detach and attach whole months of events."),
    )


app: Final = typer.Typer(
    name="runfold",
    cls=Program,
    help="An event-sourced run ledger on PostgreSQL: every claim about a run, provable.",
    epilog=f"{_EXAMPLES}\n{EPILOG}",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _show_version(value: bool) -> None:  # noqa: FBT001  Typer calls it with the flag
    if value:
        sys.stdout.write(f"runfold {__version__}\n")
        raise typer.Exit(OK)


Version = Annotated[
    bool,
    typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True),
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
    """Run the program and return its exit code; it raises nothing."""
    for stream, redirected in ((sys.stdout, redirect_stdout), (sys.stderr, redirect_stderr)):
        if stream is None:  # closed by the caller, who wants no output
            with open(os.devnull, "w") as nowhere, redirected(nowhere):
                return main(arguments)
    if sys.stdin is None:  # closed by the caller, who gives no input
        with open(os.devnull) as sys.stdin:
            return main(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    return _run(sys.argv[1:] if arguments is None else list(arguments))


def _run(words: list[str]) -> int:
    options = Globals()
    try:
        code = typer.main.get_command(app)(
            words, prog_name="runfold", standalone_mode=False, obj=options
        )
        _flush()
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        return _without_reader()
    except SystemExit as ending:  # shell completion, and Click on a closed pipe
        if isinstance(ending.__context__, BrokenPipeError):
            return _without_reader()
        return int(ending.code or 0)
    except Exception as error:  # the one place where everything ends
        code = report(error, as_json=options.json or "--json" in words, verbose=options.verbose)
        try:
            _flush()
        except OSError:
            _drop_output()
    return int(code or OK)


def _flush() -> None:
    """Flush what was printed, unless a handler closed standard output."""
    if not sys.stdout.closed:
        sys.stdout.flush()


def _without_reader() -> int:
    _drop_output()
    return BROKEN_PIPE


def _drop_output() -> None:
    # The interpreter flushes standard output once more at its end: give it somewhere to go.
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
