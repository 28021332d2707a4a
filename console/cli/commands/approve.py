"""`runfold cancel`, `approve`, `reject` and `signal`: what a person tells a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from runfold.console.cli.kit.options import Actor, Reason, RunId, command
from runfold.console.cli.kit.output import Output
from runfold.console.cli.kit.session import Session

if TYPE_CHECKING:
    from runfold.ledger import Run


async def cancel(
    session: Session, run: RunId, *, reason: Reason = None, actor: Actor = None
) -> None:
    """Call a run off: at once where nobody holds it, else as a request to its worker."""
    from runfold.console.cli.kit.run_id import find_run

    async with session.ledger() as ledger:
        after = await ledger.cancel(await find_run(ledger, run), actor=actor, reason=reason)
    _write(session.out, after)
    if not after.is_terminal:
        session.out.talk(
            f"{after.worker_id} holds it and learns of the cancellation with its next heartbeat"
        )


async def approve(
    session: Session, run: RunId, *, reason: Reason = None, actor: Actor = None
) -> None:
    """Grant the approval that a run waits for."""
    await _decide(session, run, granted=True, reason=reason, actor=actor)


async def reject(
    session: Session, run: RunId, *, reason: Reason = None, actor: Actor = None
) -> None:
    """Refuse the approval that a run waits for; the run is cancelled."""
    await _decide(session, run, granted=False, reason=reason, actor=actor)


async def signal(
    session: Session,
    run: RunId,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name that the run waits for.")],
    value: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[VALUE]...", help="JSON, `-` for standard input, or key=text key:=json."
        ),
    ] = None,
    *,
    key: Annotated[
        str | None, typer.Option("--key", metavar="KEY", help="The same key and value signal once.")
    ] = None,
    actor: Actor = None,
) -> None:
    """Send a run a value under a name; it is kept until the run asks for it."""
    from runfold.console.cli.kit.run_id import find_run
    from runfold.console.cli.kit.values import payload

    given = payload(value or [])
    async with session.ledger() as ledger:
        after = await ledger.signal(await find_run(ledger, run), name, given, actor=actor, key=key)
    _write(session.out, after)
    if after.available_at is None and not after.is_terminal:
        session.out.talk("kept until the run asks for it")


async def _decide(
    session: Session, run: str, *, granted: bool, reason: str | None, actor: str | None
) -> None:
    from runfold.console.cli.kit.run_id import find_run

    async with session.ledger() as ledger:
        wanted = await find_run(ledger, run)
        decide = ledger.approve if granted else ledger.reject
        after = await decide(
            wanted, actor=actor if actor is not None else ledger.actor, reason=reason
        )
    _write(session.out, after)
    if after.is_parked:
        session.out.talk("approved; it goes on when a worker takes it up")


def _write(out: Output, run: Run) -> None:
    if out.as_json:
        out.json(run)
    else:
        out.line(f"{run.run_id} {run.state}")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for name, body in (
        ("cancel", cancel),
        ("approve", approve),
        ("reject", reject),
        ("signal", signal),
    ):
        command(app, name, panel="Decisions")(body)
