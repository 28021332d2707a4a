"""`runfold reap`: repair runs whose worker died, as a duty or once."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Annotated, Final

import typer

from runfold.console.cli.kit.duty import until_terminated
from runfold.console.cli.kit.options import WORKER, command, program
from runfold.console.cli.kit.output import Output
from runfold.console.cli.kit.session import Session
from runfold.console.shared.plain import number_of
from runfold.ledger import Ledger, Run
from runfold.workers.duties.reaper import Reaper
from runfold.workers.process.worker_thread import when_it_answers

BATCH: Final = 1_000
MAX_SWEEPS: Final = 1_000


app: Final = program()


@command(app, "reap", rights="work", needs=WORKER)
async def reap(
    session: Session,
    *,
    once: Annotated[
        bool, typer.Option("--once", help="Repair what is due now, print it and end.")
    ] = False,
) -> None:
    """Repair runs whose worker died, until SIGTERM or Ctrl-C.

    A run whose lease expired goes back to pending, or fails if no attempt is left; a run past its
    deadline ends.
    """
    if once:
        async with session.ledger() as ledger:
            count = await _sweep(ledger, session.out)
            session.out.talk(f"{number_of(count, 'run')} repaired")
        return

    async with AsyncExitStack() as stack:
        stack.enter_context(until_terminated())
        ledger = await when_it_answers(session.duty, stack)
        every = ledger.settings.reaper_seconds
        session.out.begin(
            f"reaping project {ledger.project_id} every {every:g} s, after one lease's time; "
            "Ctrl-C ends it"
        )
        await Reaper(ledger, every=every, limit=BATCH).run()


async def _sweep(ledger: Ledger, out: Output) -> int:
    count = 0
    for _ in range(MAX_SWEEPS):
        repaired = await ledger.reap(limit=BATCH)
        for run in repaired:
            _write(out, run)
        count += len(repaired)
        if len(repaired) < BATCH:
            break
    return count


def _write(out: Output, run: Run) -> None:
    if out.as_json:
        out.json(run)
    else:
        why = run.error_code or "cancelled as requested"
        out.line(
            f"{run.run_id} {run.state}  attempt {run.attempt_count} of {run.max_attempts}  {why}"
        )
