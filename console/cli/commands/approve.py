"""`runfold approve`: grant the approval that a run waits for."""

from __future__ import annotations

from typing import Final

from runfold.console.cli.kit.decision import decide
from runfold.console.cli.kit.options import Actor, Reason, RunId, command, program
from runfold.console.cli.kit.session import Session

app: Final = program()


@command(app, "approve")
async def approve(
    session: Session, run: RunId, *, reason: Reason = None, actor: Actor = None
) -> None:
    """Grant the approval that a run waits for."""
    await decide(session, run, granted=True, reason=reason, actor=actor)
