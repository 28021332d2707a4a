"""`runfold show`: one run as it is, and what can be done next."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from runfold.console.cli.kit.options import RunId, command, program
from runfold.console.cli.kit.run_details import write_run
from runfold.console.cli.kit.run_id import find_run
from runfold.console.cli.kit.session import Session
from runfold.console.shared.approval_requests import ApprovalRequest, pending_request, roles_of
from runfold.ledger import Ledger, Run, State

app: Final = program()


@command(app, "show", rights="read | work | audit")
async def show(session: Session, run: RunId) -> None:
    """Show a run and what can be done next.

    Data goes to standard output: state, lease, last failure, input and output. What can be done
    next goes to standard error.
    """
    async with session.ledger() as ledger:
        current = await ledger.get(await find_run(ledger, run))
        request, bar = await _request(ledger, current)
    write_run(session.out, current, request)
    for hint in hints(current, request, bar):
        session.out.talk(hint)


async def _request(ledger: Ledger, run: Run) -> tuple[ApprovalRequest | None, str | None]:
    """Return the approval that the run waits for, and why the caller may not decide it."""
    if run.state != State.WAITING_APPROVAL:
        return None, None
    request = await pending_request(ledger, run.run_id)
    if request is None:
        return None, None
    return request, request.bars(ledger.actor, await roles_of(ledger, ledger.actor))


def hints(run: Run, request: ApprovalRequest | None = None, bar: str | None = None) -> list[str]:
    """Return what can be done next, a line each."""
    watch = f"to watch it: runfold history {run.run_id} --follow"
    if run.is_terminal:
        return [
            f"all its events: runfold history {run.run_id}",
            f"to check it: runfold verify {run.run_id}",
            f"to run it again: runfold rerun {run.run_id}",
        ]
    if run.lease_until is not None and run.lease_until < datetime.now(UTC):
        return ["its lease has ended; a reaper repairs it: runfold reap --once", watch]
    if run.cancel_requested_at is not None:
        return ["its worker learns of the cancellation with its next heartbeat", watch]
    if request is not None:
        return _decision_hints(request, bar)
    if run.available_at is not None and run.available_at <= datetime.now(UTC):
        return [f"it waits for a worker that takes kind {run.kind!r}", watch]
    return [watch]


def _decision_hints(request: ApprovalRequest, bar: str | None) -> list[str]:
    decide = f"runfold approve {request.run_id} --request {request.version}"
    if bar is not None:
        return [f"{bar}; to decide as somebody else: {decide} --actor NAME"]
    return [
        f"to approve: {decide}",
        f"to reject: {decide.replace('approve', 'reject', 1)} --reason ...",
    ]
