"""`runfold approve`: grant the approval that a run waits for."""

from __future__ import annotations

from typing import Final

from runfold.console.cli.kit.decision import RequestVersion, decide
from runfold.console.cli.kit.options import WORKER, Actor, Reason, RunId, command, program
from runfold.console.cli.kit.session import Session

app: Final = program()


@command(app, "approve", rights="decide", needs=WORKER)
async def approve(
    session: Session,
    run: RunId,
    *,
    request: RequestVersion = None,
    reason: Reason = None,
    actor: Actor = None,
) -> int:
    """Grant the approval that a run waits for.

    A decision holds for one request: name it, or read and confirm it at the terminal.
    """
    return await decide(session, run, granted=True, request=request, reason=reason, actor=actor)
