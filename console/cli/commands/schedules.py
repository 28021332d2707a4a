"""`runfold schedules list|add|pause|resume|run|remove`: runs that are due by cron expressions."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from runfold.console.cli.kit.options import WORKER, Actor, Ahead, RequiredReason, command, program
from runfold.console.cli.kit.output import EMPTY
from runfold.console.cli.kit.session import Session
from runfold.console.shared.plain import moment
from runfold.console.shared.values import payload
from runfold.ledger.errors import ScheduleNotFound
from runfold.ledger.schedules import Schedule

app: Final = program("Submit runs by cron expressions.")

_STOPPED: Final = {(True, False): "paused", (False, True): "no handler"}
Name = Annotated[str, typer.Argument(metavar="NAME", help="The schedule.")]


@command(app, "list", rights="read | schedule | audit")
async def list_(session: Session) -> None:
    """List every schedule with its next and last due time."""
    async with session.ledger() as ledger:
        schedules = await ledger.schedules()
    if session.as_json:
        for schedule in schedules:
            session.out.json(schedule)
        return
    if not schedules:
        session.out.talk("no schedules yet: runfold schedules add NAME KIND --cron '0 3 * * *'")
        return
    titles = ("NAME", "KIND", "CRON", "TIMEZONE", "NEXT", "LAST", "RELEASE", "BY")
    session.out.table(titles, [_row(schedule) for schedule in schedules], [None] * len(schedules))


@command(app, "add", rights="schedule", needs=WORKER)
async def add(
    session: Session,
    name: Name,
    kind: Annotated[str, typer.Argument(metavar="KIND", help="The kind of run to submit.")],
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[INPUT]...", help="The run's input, as of `runfold submit`."),
    ] = None,
    *,
    cron: Annotated[
        str,
        typer.Option("--cron", metavar="CRON", help="Minute, hour, day, month, day of the week."),
    ],
    timezone: Annotated[
        str, typer.Option("--timezone", metavar="ZONE", help="Such as Europe/Berlin.")
    ] = "UTC",
    ahead: Ahead = False,
    actor: Actor = None,
) -> None:
    """Create a schedule, or change the one of this name."""
    content = payload(words or [])
    async with session.ledger() as ledger:
        made = await ledger.schedule(
            name, kind, content, cron=cron, timezone=timezone, actor=actor, ahead=ahead
        )
    state = "paused" if made.is_paused else f"due {moment(made.next_at)}"
    session.out.json(made) if session.as_json else session.out.line(f"{made.name} is {state}")


@command(app, "remove", rights="schedule", needs=WORKER)
async def remove(session: Session, name: Name) -> None:
    """Remove a schedule; the runs that it submitted stay."""
    async with session.ledger() as ledger:
        if not await ledger.unschedule(name):
            raise ScheduleNotFound(name, [schedule.name for schedule in await ledger.schedules()])
    session.out.json({"name": name, "removed": True}) if session.as_json else session.out.talk(
        f"{name} is removed"
    )


@command(app, "pause", rights="schedule", needs=WORKER)
async def pause(
    session: Session, name: Name, *, reason: RequiredReason, actor: Actor = None
) -> None:
    """Have a schedule submit nothing until it is resumed."""
    async with session.ledger() as ledger:
        paused = await ledger.pause_schedule(name, reason=reason, actor=actor)
    session.out.json(paused) if session.as_json else session.out.line(f"{name} is paused")


@command(app, "resume", rights="schedule", needs=WORKER)
async def resume(
    session: Session, name: Name, *, reason: RequiredReason, actor: Actor = None
) -> None:
    """Have a paused schedule go on from its next due time; what it missed is not made up for."""
    async with session.ledger() as ledger:
        resumed = await ledger.resume_schedule(name, reason=reason, actor=actor)
    session.out.json(resumed) if session.as_json else session.out.line(
        f"{name} is due {moment(resumed.next_at)}"
    )


@command(app, "run", rights="schedule & submit", needs=WORKER)
async def run(session: Session, name: Name, *, reason: RequiredReason, actor: Actor = None) -> None:
    """Submit a schedule's run now and print its id; its due times stay."""
    async with session.ledger() as ledger:
        made = await ledger.run_schedule(name, reason=reason, actor=actor)
    session.out.json(made) if session.as_json else session.out.line(str(made.run_id))


def _row(schedule: Schedule) -> tuple[str, ...]:
    last = moment(schedule.last_due) if schedule.last_due else EMPTY
    return (
        schedule.name,
        schedule.kind,
        schedule.cron,
        schedule.timezone,
        _STOPPED.get((schedule.is_paused, schedule.is_orphan)) or moment(schedule.next_at),
        last,
        moment(schedule.release) if schedule.release else EMPTY,
        schedule.actor,
    )
