"""`runfold snooze`: keep a request for an approval out of a person's list for a while."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Final

import typer

from runfold.console.cli.kit.options import WORKER, Actor, RunId, command, program
from runfold.console.cli.kit.run_id import find_run
from runfold.console.cli.kit.session import Session
from runfold.console.shared import values
from runfold.console.shared.approval_requests import pending_request
from runfold.console.shared.inbox import change_inbox
from runfold.console.shared.plain import moment, relative
from runfold.console.shared.values import Misuse
from runfold.ledger.errors import IllegalTransition
from runfold.ledger.postgres.clock import ledger_now
from runfold.ledger.validation import check_duration

app: Final = program()


@command(app, "snooze", rights="decide & read | work | audit", needs=WORKER)
async def snooze_(
    session: Session,
    run: RunId,
    *,
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="WHEN", help="How long, such as 4h, or an instant."),
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Show it again.")] = False,
    actor: Actor = None,
) -> None:
    """Keep a request for an approval out of your list for a while.

    It is your own setting, not an event: others see the request. It is back at its time, and
    earlier if it is replaced or another person approves it.
    """
    if undo == (until is not None):
        raise Misuse("--until", "give a time, or --undo")
    chosen = None if until is None else _chosen(until)
    async with session.ledger() as ledger:
        end = await ledger_now(ledger.pool) + chosen if isinstance(chosen, timedelta) else chosen
        run_id = await find_run(ledger, run)
        pending = await pending_request(ledger, run_id)
        if pending is None and end is not None:
            state = (await ledger.get(run_id)).state
            raise IllegalTransition(run_id, state, "put off", "it waits for no approval")
        changed = pending is not None and await change_inbox(
            ledger, run_id, pending.version, end, actor=actor
        )
    if session.as_json:
        session.out.json({"run_id": run_id, "snoozed_until": end, "changed": changed})
    elif end is not None:
        session.out.talk(f"not shown until {moment(end)} ({relative(end)}), or until it changes")
    else:
        session.out.talk("shown again" if changed else "it was not put off")


def _chosen(text: str) -> datetime | timedelta:
    chosen = values.deadline(text, "--until")
    return chosen if isinstance(chosen, datetime) else check_duration("--until", chosen)
