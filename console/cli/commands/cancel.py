"""`runfold cancel`: cancel a run, or every run that fits a query."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from runfold.console.cli.kit.bulk import Count, Query, act_on_all
from runfold.console.cli.kit.decision import write_state
from runfold.console.cli.kit.exits import OK
from runfold.console.cli.kit.options import WORKER, Actor, Reason, command, program
from runfold.console.cli.kit.run_id import find_run
from runfold.console.cli.kit.session import Session
from runfold.console.shared.values import Misuse

app: Final = program()


@command(app, "cancel", rights="submit", needs=WORKER)
async def cancel(
    session: Session,
    run: Annotated[
        str | None,
        typer.Argument(metavar="[RUN]", help="A run's id, or a unique beginning; or a query."),
    ] = None,
    *,
    query: Query = None,
    count: Count = None,
    reason: Reason = None,
    actor: Actor = None,
) -> int:
    """Cancel a run, or every run that fits a query.

    A pending or parked run ends at once. The worker of a held run learns of the request with its
    next heartbeat. A query needs a reason, and the count or a terminal.
    """
    if query is not None and run is None:
        return await act_on_all(session, "cancel", query, reason=reason, actor=actor, count=count)
    if query is not None or run is None or count is not None:
        raise Misuse("RUN", "give either a run, or --query for all that fit")
    async with session.ledger() as ledger:
        after = await ledger.cancel(await find_run(ledger, run), actor=actor, reason=reason)
    write_state(session.out, after)
    if not after.is_terminal:
        session.out.talk(f"requested: {after.worker_id} learns of it with its next heartbeat")
    return OK
