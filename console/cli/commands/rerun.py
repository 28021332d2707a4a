"""`runfold rerun`: run ended runs again."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from runfold.console.cli.kit.bulk import Count, Query, act_on_all
from runfold.console.cli.kit.exits import OK
from runfold.console.cli.kit.options import WORKER, Actor, Reason, command, program
from runfold.console.cli.kit.run_id import find_run
from runfold.console.cli.kit.session import Session
from runfold.console.shared.rerun import rerun as rerun_runs
from runfold.console.shared.values import Misuse

app: Final = program()


@command(app, "rerun", rights="submit & read", needs=WORKER)
async def rerun(
    session: Session,
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN]...", help="Ended runs; or none, and a query."),
    ] = None,
    *,
    query: Query = None,
    count: Count = None,
    reason: Reason = None,
    actor: Actor = None,
) -> int:
    """Run ended runs again, each as a new run linked to the old one.

    The new run has the same kind, input, priority, attempts and tags. A run has one rerun: to try
    once more, rerun the rerun. A query needs a reason, and the count or a terminal; one that names
    no state means what failed or timed out.
    """
    if query is not None and not runs:
        return await act_on_all(session, "rerun", query, reason=reason, actor=actor, count=count)
    if query is not None or not runs or count is not None:
        raise Misuse("RUN", "give either runs, or --query for all that fit")
    async with session.ledger() as ledger:
        chosen = [await ledger.get(await find_run(ledger, run)) for run in dict.fromkeys(runs)]
        done = await rerun_runs(ledger, chosen, actor=actor or ledger.actor, reason=reason)
    for repeated in done:
        before = "" if repeated.created else " (rerun before)"
        session.out.json(repeated) if session.as_json else session.out.line(
            f"{repeated.run_id} rerun of {repeated.rerun_of}{before}"
        )
    session.out.talk(f"{sum(repeated.created for repeated in done):,} of {len(done):,} submitted")
    return OK
