"""Deciding the approval that a run waits for: what `approve` and `reject` share."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from runfold.console.cli.kit.confirmation import can_ask, confirmed
from runfold.console.cli.kit.exits import ERROR, OK
from runfold.console.cli.kit.output import Output, talk
from runfold.console.cli.kit.run_id import find_run
from runfold.console.cli.kit.session import Session
from runfold.console.shared.approval_requests import ApprovalRequest, pending_request
from runfold.console.shared.plain import pretty
from runfold.console.shared.request_lines import request_lines
from runfold.console.shared.values import Misuse
from runfold.ledger import Ledger, Run
from runfold.ledger.access import held
from runfold.ledger.events import ApprovalRequested
from runfold.ledger.reading.permitted import check_may

RequestVersion = Annotated[
    int | None,
    typer.Option(
        "--request",
        metavar="VERSION",
        help="The request that you decide, as `runfold show` names it; a terminal shows and asks.",
    ),
]
_VERB: Final = {True: "approve", False: "reject"}


async def decide(
    session: Session,
    run: str,
    *,
    granted: bool,
    request: int | None,
    reason: str | None,
    actor: str | None,
) -> int:
    """Approve or reject a request and print the run's state.

    The request is named by its version, or shown and confirmed at the terminal, which takes the
    right read. Raises Misuse without either, and what `Ledger.approve` raises.
    """
    async with session.ledger() as ledger:
        run_id = await find_run(ledger, run)
        named: Run | ApprovalRequested
        if request is not None and "read" not in await held(ledger.project):
            named = ApprovalRequested(run_id=run_id, version=request)
        else:
            await check_may(ledger.pool, ledger.project_id, "read")
            current = await ledger.get(run_id)
            pending = await pending_request(ledger, run_id)
            if request is None and pending is not None:
                if not _confirmed(pending, granted=granted):
                    talk("nothing was decided")
                    return ERROR
                request = pending.version
            named = current if request is None else await _request(ledger, current, request)
        decide_on = ledger.approve if granted else ledger.reject
        after = await decide_on(
            named, actor=actor if actor is not None else ledger.actor, reason=reason
        )
    write_state(session.out, after)
    if after.approved != after.approvals:
        session.out.talk(
            f"approved {after.approved} of {after.approvals}; the run waits for others"
        )
    elif after.is_parked:
        session.out.talk("approved; the run goes on when a worker claims it")
    return OK


async def _request(ledger: Ledger, run: Run, version: int) -> ApprovalRequested:
    events = await ledger.history(run.run_id, after=max(version - 1, 0), limit=1)
    if not events or not isinstance(events[0], ApprovalRequested) or events[0].version != version:
        raise Misuse(
            "--request",
            f"run {run.run_id} has no request {version}: `runfold show {run.run_id}` shows it",
        )
    return events[0]


def _confirmed(pending: ApprovalRequest, *, granted: bool) -> bool:
    if not can_ask():
        raise Misuse(
            "--request",
            f"name the request that you {_VERB[granted]}: "
            f"`runfold show {pending.run_id}` shows it and its number",
        )
    for line in request_text(pending):
        talk(line)
    return confirmed(f"{_VERB[granted]} request {pending.version}?")


def request_text(pending: ApprovalRequest) -> list[str]:
    """Return a request in full: its facts a line each, then the content that is decided."""
    lines = [f"{name:<9} {value}" for name, value in request_lines(pending)]
    if pending.show is not None:
        lines += ["content", *pretty(pending.show).splitlines()]
    return lines


def write_state(out: Output, run: Run) -> None:
    """Print a run's id and state."""
    if out.as_json:
        out.json(run)
    else:
        out.line(f"{run.run_id} {run.state}")
