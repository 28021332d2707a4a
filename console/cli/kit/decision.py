"""Deciding the approval that a run waits for: what `approve` and `reject` share."""

from __future__ import annotations

from runfold.console.cli.kit.output import Output
from runfold.console.cli.kit.run_id import find_run
from runfold.console.cli.kit.session import Session
from runfold.ledger import Run


async def decide(
    session: Session, run: str, *, granted: bool, reason: str | None, actor: str | None
) -> None:
    """Grant or reject an approval and print the run's state."""
    async with session.ledger() as ledger:
        run_id = await find_run(ledger, run)
        decide_on = ledger.approve if granted else ledger.reject
        name = actor if actor is not None else ledger.actor
        after = await decide_on(run_id, actor=name, reason=reason)
    write_state(session.out, after)
    if after.is_parked:
        session.out.talk("approved; the run goes on when a worker claims it")


def write_state(out: Output, run: Run) -> None:
    """Print a run's id and state."""
    if out.as_json:
        out.json(run)
    else:
        out.line(f"{run.run_id} {run.state}")
