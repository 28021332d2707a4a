"""`runfold demo`: the demonstration of `runfold.console.demo`."""

from __future__ import annotations

import typer

from runfold.console.cli.kit.options import command
from runfold.console.cli.kit.session import Session


def demo(session: Session) -> int:
    """See the ledger at work: workers, a crash, an approval, and the proof."""
    from runfold.console.demo.main import run
    from runfold.ledger.errors import InvalidValue

    for option, value in (("--url", session.url), ("--project", session.project)):
        if value is not None:
            raise InvalidValue(
                option,
                value,
                "is not for the demo, which brings a database and a project of its own: leave it out",
            )
    return int(run(json=session.as_json))


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "demo", panel="Care")(demo)
