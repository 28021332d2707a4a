"""`runfold archive hold|release|history`: forbid to export or detach, and who did what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

import typer

from runfold.console.cli.kit.options import OWNER, Actor, RequiredReason, command
from runfold.console.cli.kit.run_id import find_run
from runfold.console.cli.kit.session import Session
from runfold.console.shared.plain import number_of
from runfold.ledger import Ledger
from runfold.ledger.archive import record
from runfold.ledger.months import is_month

Target = Annotated[
    str, typer.Argument(metavar="MONTH|RUN", help="A month such as 2026-01, or a run.")
]


async def hold(
    session: Session, target: Target, *, reason: RequiredReason, actor: Actor = None
) -> None:
    """Hold a month, or the month of a run: it is not exported or detached until released."""
    await _hold(session, target, actor, reason, placed=True)


async def release(
    session: Session, target: Target, *, reason: RequiredReason, actor: Actor = None
) -> None:
    """Release a hold."""
    await _hold(session, target, actor, reason, placed=False)


async def history(
    session: Session,
    month: Annotated[str | None, typer.Argument(metavar="[MONTH]", help="Only this month.")] = None,
) -> None:
    """Show who exported, detached, attached, held and released what, when and why."""
    async with session.database() as database:
        events = await record.history(database.pool, month)
    for event in events:
        if session.as_json:
            session.out.json({name: value for name, value in event.items() if value is not None})
        else:
            session.out.line(_line(event))
    if not events:
        session.out.talk("nothing was archived or held, as far as this login may see")


async def _hold(
    session: Session, target: str, actor: str | None, reason: str, *, placed: bool
) -> None:
    async with session.ledger() as ledger:
        what = await _target(ledger, target)
        change = ledger.archive.hold if placed else ledger.archive.release
        await change(what, reason=reason, actor=actor)
    done = "placed" if placed else "released"
    held = what if isinstance(what, str) else what[1]
    if session.as_json:
        session.out.json({done: held})
    else:
        session.out.line(f"hold {done}: {held}")


async def _target(ledger: Ledger, text: str) -> str | tuple[str, UUID]:
    return text if is_month(text) else (ledger.project_id, await find_run(ledger, text))


def _line(event: Mapping[str, Any]) -> str:
    run = "" if event["run_id"] is None else f" run {event['run_id']} of {event['project_id']}"
    proof = (
        ""
        if event["sha256"] is None
        else f" {number_of(event['events'], 'event')}, sha256 {event['sha256'].hex()}"
    )
    why = "" if event["reason"] is None else f": {event['reason']}"
    return (
        f"{event['number']} {event['recorded_at']:%Y-%m-%d %H:%M:%S} {event['month']} "
        f"{event['type']} {event['actor']}{run}{proof}{why}"
    )


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "hold", rights="owner", needs=OWNER)(hold)
    command(app, "release", rights="owner", needs=OWNER)(release)
    command(app, "history", rights="")(history)
