"""`runfold reject`: reject the approval that a run waits for."""

from __future__ import annotations

from typing import Final

from runfold.console.cli.kit.decision import decide
from runfold.console.cli.kit.options import Actor, Reason, RunId, command, program
from runfold.console.cli.kit.session import Session

app: Final = program()


@command(app, "reject")
async def reject(
    session: Session, run: RunId, *, reason: Reason = None, actor: Actor = None
) -> None:
    """Reject the approval that a run waits for.

    The run is cancelled.
    """
    await decide(session, run, granted=False, reason=reason, actor=actor)
