"""`runfold show`: one run as it is, and what can be done next."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from runfold.console.cli.kit.options import RunId, command, program
from runfold.console.cli.kit.plain import clean
from runfold.console.cli.kit.run_details import write_run
from runfold.console.cli.kit.run_id import find_run
from runfold.console.cli.kit.session import Session
from runfold.ledger import Run

app: Final = program()


@command(app, "show")
async def show(session: Session, run: RunId) -> None:
    """Show a run and what can be done next.

    Data goes to standard output: state, lease, last failure, input and output. What can be done
    next goes to standard error.
    """
    async with session.ledger() as ledger:
        current = await ledger.get(await find_run(ledger, run))
    write_run(session.out, current)
    for hint in hints(current):
        session.out.talk(hint)


def hints(run: Run) -> list[str]:
    """Return what can be done next, a line each."""
    watch = f"to watch it: runfold history {run.run_id} --follow"
    if run.is_terminal:
        return [
            f"all its events: runfold history {run.run_id}",
            f"to check it: runfold verify {run.run_id}",
        ]
    if run.lease_until is not None and run.lease_until < datetime.now(UTC):
        return ["its lease has ended; a reaper repairs it: runfold reap --once", watch]
    if run.cancel_requested_at is not None:
        return ["its worker learns of the cancellation with its next heartbeat", watch]
    if run.state == "waiting_approval" and run.available_at is None:
        return [
            f"it waits for you: runfold approve {run.run_id}, or runfold reject {run.run_id} --reason ..."
        ]
    if run.available_at is not None and run.available_at <= datetime.now(UTC):
        return [f"it waits for a worker that takes kind {clean(run.kind)!r}", watch]
    return [watch]
