"""`runfold kinds list|pause|resume|limit|history`: what the fleet may claim of each kind."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Final

import typer

from runfold.console.cli.kit.options import Actor, command
from runfold.console.cli.kit.plain import clean
from runfold.console.cli.kit.session import Session

if TYPE_CHECKING:
    from runfold.ledger.kinds import Kind

app: Final = typer.Typer(
    help="Kinds of runs: pause, resume and limit them across all workers.", no_args_is_help=True
)

Name = Annotated[
    str, typer.Argument(metavar="KIND", help="The kind of run; it need not have runs yet.")
]
Why = Annotated[
    str | None,
    typer.Option("--reason", metavar="TEXT", help="Why; kept in the history of the kind."),
]


@command(app, "list")
async def list_(session: Session) -> None:
    """List every kind, what is held of it, and what counts for it."""
    async with session.ledger() as ledger:
        found = await ledger.kinds()
    for kind in found:
        _say(session, kind)
    if not found:
        session.out.talk("no kinds yet: runfold submit KIND")


@command(app, "pause")
async def pause(session: Session, kind: Name, *, actor: Actor = None, reason: Why = None) -> None:
    """Have no run of a kind claimed; what is held goes on."""
    async with session.ledger() as ledger:
        _say(session, await ledger.pause_kind(kind, actor=actor, reason=reason))


@command(app, "resume")
async def resume(session: Session, kind: Name, *, actor: Actor = None, reason: Why = None) -> None:
    """Have runs of a kind claimed again."""
    async with session.ledger() as ledger:
        _say(session, await ledger.resume_kind(kind, actor=actor, reason=reason))


@command(app, "limit")
async def limit(
    session: Session,
    kind: Name,
    max_running: Annotated[
        int | None,
        typer.Argument(
            metavar="[MAX]", help="How many all workers may hold together; none: no limit."
        ),
    ] = None,
    *,
    actor: Actor = None,
    reason: Why = None,
) -> None:
    """Limit how many runs of a kind all workers hold together; without MAX, take the limit away."""
    async with session.ledger() as ledger:
        _say(session, await ledger.limit_kind(kind, max_running, actor=actor, reason=reason))


@command(app, "history")
async def history(session: Session, kind: Name) -> None:
    """Tell who paused, resumed or limited a kind, when and why."""
    async with session.ledger() as ledger:
        events = await ledger.kind_history(kind)
    for event in events:
        if session.as_json:
            session.out.json(asdict(event))
            continue
        most = "" if event.type != "kind.limited" else f" {event.max_running or 'no limit'}"
        why = "" if event.reason is None else f": {clean(event.reason)}"
        session.out.line(
            f"{event.number} {event.recorded_at:%Y-%m-%d %H:%M:%S} {event.type}{most} {clean(event.actor)}{why}"
        )
    if not events:
        session.out.talk("nobody ever changed this kind")


def _say(session: Session, kind: Kind) -> None:
    if session.as_json:
        session.out.json(
            {
                name: value
                for name, value in asdict(kind).items()
                if name != "held" or value is not None
            }
        )
        return
    facts = ["paused" if kind.paused else "open"]
    facts += [f"at most {kind.max_running:,}"] if kind.max_running is not None else []
    facts += [f"{kind.held:,} held"] if kind.held is not None else []
    session.out.line(f"{clean(kind.kind)}: {', '.join(facts)}")
