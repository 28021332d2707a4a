"""`runfold kinds list|pause|resume|limit|history`: what workers may claim of each kind."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Final

import typer

from runfold.console.cli.kit.options import WORKER, Actor, Ahead, OrderReason, command, program
from runfold.console.cli.kit.session import Session
from runfold.ledger.kinds import Kind

app: Final = program("Pause, resume and limit kinds of runs.")

Name = Annotated[str, typer.Argument(metavar="KIND", help="The kind of run.")]


@command(app, "list", rights="read | work | submit | audit")
async def list_(session: Session) -> None:
    """List every kind with its settings and how many runs workers hold of it."""
    async with session.ledger() as ledger:
        kinds = await ledger.kinds()
    for kind in kinds:
        _write(session, kind)
    if not kinds:
        session.out.talk("no kinds yet: runfold submit KIND")


@command(app, "pause", rights="admin", needs=WORKER)
async def pause(
    session: Session,
    kind: Name,
    *,
    ahead: Ahead = False,
    actor: Actor = None,
    reason: OrderReason = None,
) -> None:
    """Stop workers from claiming runs of a kind; held runs continue."""
    async with session.ledger() as ledger:
        _write(session, await ledger.pause_kind(kind, actor=actor, reason=reason, ahead=ahead))


@command(app, "resume", rights="admin", needs=WORKER)
async def resume(
    session: Session,
    kind: Name,
    *,
    ahead: Ahead = False,
    actor: Actor = None,
    reason: OrderReason = None,
) -> None:
    """Allow claims of a kind again."""
    async with session.ledger() as ledger:
        _write(session, await ledger.resume_kind(kind, actor=actor, reason=reason, ahead=ahead))


@command(app, "limit", rights="admin", needs=WORKER)
async def limit(
    session: Session,
    kind: Name,
    max_running: Annotated[
        int | None,
        typer.Argument(
            metavar="[MAX]", help="How many all workers may hold together; none removes the limit."
        ),
    ] = None,
    *,
    ahead: Ahead = False,
    actor: Actor = None,
    reason: OrderReason = None,
) -> None:
    """Limit how many runs of a kind all workers hold together.

    Without MAX the limit is removed.
    """
    async with session.ledger() as ledger:
        _write(
            session,
            await ledger.limit_kind(kind, max_running, actor=actor, reason=reason, ahead=ahead),
        )


@command(app, "history", rights="read | audit")
async def history(session: Session, kind: Name) -> None:
    """Show who paused, resumed or limited a kind, when and why."""
    async with session.ledger() as ledger:
        events = await ledger.kind_history(kind)
    for event in events:
        if session.as_json:
            session.out.json(event)
            continue
        most = "" if event.type != "kind.limited" else f" {event.max_running or 'no limit'}"
        why = "" if event.reason is None else f": {event.reason}"
        session.out.line(
            f"{event.number} {event.recorded_at:%Y-%m-%d %H:%M:%S} {event.type}{most} "
            f"{event.actor}{why}"
        )
    if not events:
        session.out.talk("this kind was never changed")


def _write(session: Session, kind: Kind) -> None:
    if session.as_json:
        shown = asdict(kind)
        if kind.held is None:
            del shown["held"]
        session.out.json(shown)
        return
    facts = ["paused" if kind.paused else "open"]
    facts += [f"at most {kind.max_running:,}"] if kind.max_running is not None else []
    facts += [f"{kind.held:,} held"] if kind.held is not None else []
    session.out.line(f"{kind.kind}: {', '.join(facts)}")
