"""`runfold approvals`: the approvals that runs wait for."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer

from runfold.console.cli.kit.options import Actor, command, program
from runfold.console.cli.kit.output import EMPTY
from runfold.console.cli.kit.session import Session
from runfold.console.shared.approval_requests import ApprovalRequest, pending_requests, roles_of
from runfold.console.shared.inbox import inbox, snoozed_requests
from runfold.console.shared.plain import compact, jsonable, relative, span
from runfold.console.shared.request_lines import progress
from runfold.ledger import Ledger
from runfold.ledger.validation import check_int

TITLES: Final = (
    "RUN",
    "REQUEST",
    "KIND",
    "PROMPT",
    "ROLE",
    "SUBMITTED BY",
    "APPROVED",
    "AGE",
    "UNDECIDED",
)
_LIMIT: Final = 10_000

app: Final = program()


@command(app, "approvals", rights="read | work | audit")
async def approvals(
    session: Session,
    *,
    mine: Annotated[
        bool,
        typer.Option("--mine", help="Only what you may decide, and have not put off."),
    ] = False,
    snoozed: Annotated[
        bool, typer.Option("--snoozed", help="Only what you have put off by `runfold snooze`.")
    ] = False,
    actor: Actor = None,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", help="At most this many, up to 10,000.")
    ] = 100,
) -> None:
    """List the approvals that runs wait for, the oldest first."""
    check_int("--limit", limit, least=1, most=_LIMIT)
    async with session.ledger() as ledger:
        name = actor if actor is not None else ledger.actor
        requests = await _requests(
            ledger, name, _LIMIT if mine else limit, mine=mine, snoozed=snoozed
        )
        roles = await roles_of(ledger, name)
    if mine:
        requests = [request for request in requests if request.bars(name, roles) is None][:limit]
    if session.as_json:
        for request in requests:
            session.out.json(_facts(request, name, roles))
        return
    if not requests:
        nothing = f"no approval waits{f' for {name}' if mine else ''}"
        session.out.talk(f"{name} has put off nothing" if snoozed else nothing)
        return
    session.out.table(TITLES, [_row(request) for request in requests], [None] * len(requests))
    session.out.talk("to read one in full: runfold show RUN")
    session.out.talk("to decide: runfold approve RUN --request N")


async def _requests(
    ledger: Ledger, name: str, limit: int, *, mine: bool, snoozed: bool
) -> list[ApprovalRequest]:
    if snoozed:
        return [request for request, _ in await snoozed_requests(ledger, name)][:limit]
    return await (inbox(ledger, name, limit) if mine else pending_requests(ledger, limit))


def _facts(request: ApprovalRequest, name: str, roles: set[str]) -> dict[str, Any]:
    bar = request.bars(name, roles)
    return {**jsonable(request), "may_decide": bar is None, "bar": bar}


def _row(request: ApprovalRequest) -> tuple[str, ...]:
    return (
        str(request.run_id),
        str(request.version),
        request.kind,
        compact(request.prompt) if request.prompt else EMPTY,
        request.role or EMPTY,
        f"{request.submitted_by}{' (may not)' if request.other_person else ''}",
        progress(request),
        span(datetime.now(UTC) - request.asked_at),
        relative(request.wait_until) if request.wait_until else EMPTY,
    )
