"""`runfold reject`: reject the approval that a run waits for."""

from __future__ import annotations

from typing import Final

from runfold.console.cli.kit.decision import RequestVersion, decide
from runfold.console.cli.kit.options import WORKER, Actor, Reason, RunId, command, program
from runfold.console.cli.kit.session import Session

app: Final = program()


@command(app, "reject", rights="decide", needs=WORKER)
async def reject(
    session: Session,
    run: RunId,
    *,
    request: RequestVersion = None,
    reason: Reason = None,
    actor: Actor = None,
) -> int:
    """Reject the approval that a run waits for.

    The run is cancelled. A decision holds for one request: name it, or read and confirm it at the
    terminal.
    """
    return await decide(session, run, granted=False, request=request, reason=reason, actor=actor)
