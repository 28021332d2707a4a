"""`runfold cancel`: cancel a run."""

from __future__ import annotations

from typing import Final

from runfold.console.cli.kit.decision import write_state
from runfold.console.cli.kit.options import WORKER, Actor, Reason, RunId, command, program
from runfold.console.cli.kit.run_id import find_run
from runfold.console.cli.kit.session import Session

app: Final = program()


@command(app, "cancel", needs=WORKER)
async def cancel(
    session: Session, run: RunId, *, reason: Reason = None, actor: Actor = None
) -> None:
    """Cancel a run.

    A pending or parked run ends at once. The worker of a held run learns of the request with its
    next heartbeat.
    """
    async with session.ledger() as ledger:
        after = await ledger.cancel(await find_run(ledger, run), actor=actor, reason=reason)
    write_state(session.out, after)
    if not after.is_terminal:
        session.out.talk(f"requested: {after.worker_id} learns of it with its next heartbeat")
