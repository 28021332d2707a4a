"""`runfold rerun`: run ended runs again."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from runfold.console.cli.kit.bulk import Count, Query, act_on_all
from runfold.console.cli.kit.confirmation import agreed
from runfold.console.cli.kit.exits import ERROR, OK
from runfold.console.cli.kit.options import WORKER, Actor, Reason, command, program
from runfold.console.cli.kit.run_id import find_run
from runfold.console.cli.kit.run_options import RunOptions, ended_runs
from runfold.console.cli.kit.session import Session
from runfold.console.shared.plain import number_of
from runfold.console.shared.rerun import rerun as rerun_runs
from runfold.console.shared.values import Misuse
from runfold.ledger import Ledger, Run

app: Final = program()


@command(app, "rerun", rights="submit & read", needs=WORKER)
async def rerun(
    session: Session,
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN]...", help="Ended runs; or none, and a filter."),
    ] = None,
    *,
    state: Annotated[
        str | None,
        typer.Option("--state", metavar="STATE", help="Every run that ended so, such as failed."),
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--kind", metavar="KIND", help="Of these, only this kind.")
    ] = None,
    tag: Annotated[
        str | None, typer.Option("--tag", metavar="TAG", help="Of these, only with this tag.")
    ] = None,
    error: Annotated[
        str | None,
        typer.Option("--error", metavar="CODE", help="Of these, only with this error code."),
    ] = None,
    query: Query = None,
    count: Count = None,
    reason: Reason = None,
    actor: Actor = None,
) -> int:
    """Run ended runs again, each as a new run linked to the old one.

    The new run has the same kind, input, priority, attempts and tags. A run has one rerun: to try
    once more, rerun the rerun. With a filter or a query a reason is needed, and the count or a
    terminal. A query that names no state means what failed or timed out.
    """
    if query is not None and not (runs or state or kind or tag or error):
        return await act_on_all(session, "rerun", query, reason=reason, actor=actor, count=count)
    if query is not None:
        raise Misuse("--query", "goes alone: leave out the runs and the other filters")
    if bool(runs) == (state is not None):
        raise Misuse("RUN", "give either runs, or --state for all that ended so")
    if state is None and (kind or tag or error):
        raise Misuse("--state", "a filter needs one, such as --state failed")
    if state is not None and reason is None:
        raise Misuse("--reason", "a filter needs one; it is recorded with every run")
    async with session.ledger() as ledger:
        if state is None:
            chosen = [await _run(ledger, run) for run in dict.fromkeys(runs or ())]
        else:
            options = RunOptions([state], kind=kind, tag=tag)
            chosen = await ended_runs(ledger, options, error)
        found = number_of(len(chosen), "run")
        if state is not None and not agreed("rerun", found, matching=len(chosen), count=count):
            return ERROR
        done = await rerun_runs(ledger, chosen, actor=actor or ledger.actor, reason=reason)
    for repeated in done:
        before = "" if repeated.created else " (rerun before)"
        session.out.json(repeated) if session.as_json else session.out.line(
            f"{repeated.run_id} rerun of {repeated.rerun_of}{before}"
        )
    session.out.talk(f"{sum(repeated.created for repeated in done):,} of {len(done):,} submitted")
    return OK


async def _run(ledger: Ledger, run: str) -> Run:
    return await ledger.get(await find_run(ledger, run))
