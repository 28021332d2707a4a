"""`runfold demo`: the demonstration of `runfold.console.demo`."""

from __future__ import annotations

from typing import Final

from runfold.console.cli.kit.options import command, program
from runfold.console.cli.kit.session import Session
from runfold.console.demo.main import run
from runfold.ledger.errors import InvalidValue

app: Final = program()


@command(app, "demo")
def demo(session: Session) -> int:
    """See the ledger at work: a crash, an approval, the proof.

    Three workers measure the files of Python's standard library; one of them is killed.
    """
    for option, value in (("--url", session.url), ("--project", session.project)):
        if value is not None:
            raise InvalidValue(
                option,
                value,
                "leave it out: the demo uses the built-in database and its own project",
            )
    return run(json=session.as_json, verbose=session.verbose)
