"""`runfold projections`: read models, kept up with the events."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Final

import typer

from runfold.console.cli.commands import projections_rebuild as rebuilding
from runfold.console.cli.kit.exits import INTEGRITY, OK
from runfold.console.cli.kit.options import OWNER, PROJECTOR, Actor, command, program
from runfold.console.cli.kit.output import EMPTY, Output
from runfold.console.cli.kit.plain import clean, moment
from runfold.console.cli.kit.projection_modules import chosen_projections, declared_projections
from runfold.console.cli.kit.session import Session
from runfold.console.cli.kit.values import Misuse
from runfold.ledger import log
from runfold.ledger import names as log_names
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.settings import Settings, default_actor
from runfold.ledger.validation import check_run_id
from runfold.projections.declared import refold
from runfold.projections.declared import status as statuses_of
from runfold.projections.declared.catch_up import CatchUp
from runfold.projections.declared.installing import install
from runfold.projections.declared.rows import rows
from runfold.projections.declared.status import Status, statuses
from runfold.projections.errors import ProjectionFailed, ProjectionNotFound
from runfold.workers.duties.projector import Projector

app: Final = program("Run, inspect and rebuild projections.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The projection.")]
Modules = Annotated[
    list[str] | None,
    typer.Option(
        "--module",
        metavar="MODULE",
        help="A module that declares projections; else RUNFOLD_PROJECTIONS.",
    ),
]

_COLOURS: Final = {
    "current": "green",
    "behind": "cyan",
    "paused": "yellow",
    "failed": "bold red",
    "replaced": "red",
}


@command(app, "list")
async def list_(session: Session, *, module: Modules = None) -> None:
    """List the projections that are declared or installed, with their status."""
    found = await _statuses(session, module)
    if session.as_json:
        for status in found:
            session.out.json(status)
        return
    rows = [
        (
            s.name,
            str(s.version),
            s.state,
            f"{s.events:,}",
            f"{s.behind:,}",
            moment(s.moved_at) if s.moved_at else EMPTY,
        )
        for s in found
    ]
    titles = ("NAME", "VERSION", "STATE", "EVENTS", "BEHIND", "MOVED")
    session.out.table(titles, rows, [_COLOURS.get(status.state) for status in found])


@command(app, "status")
async def status(
    session: Session,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Only this one; else all.")
    ] = None,
    *,
    module: Modules = None,
) -> int:
    """Show each projection's status: where and why one has stopped, or has set runs aside.

    Exit code 7 if one has stopped or has set a run aside.
    """
    found = await _statuses(session, module)
    if name is not None:
        known = [one.name for one in found]
        found = [one for one in found if one.name == name]
        if not found:
            raise ProjectionNotFound(name, known)
    for one in found:
        session.out.json(one) if session.as_json else _write(session.out, one)
    return INTEGRITY if any(one.state == "failed" or one.set_aside for one in found) else OK


@command(app, "show")
async def show(
    session: Session,
    name: Name,
    *,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="COLUMN=VALUE", help="Only rows with this value."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", help="So many rows at most.")] = 50,
) -> None:
    """Show the rows of a projection, in the order of its key."""
    conditions = dict(_condition(text) for text in where or ())
    async with session.database() as database:
        found = await rows(database.pool, name, where=conditions, limit=limit)
    if session.as_json:
        for row in found:
            session.out.json(row)
    elif found:
        cells = [tuple(_cell(value) for value in row.values()) for row in found]
        titles = tuple(column.upper() for column in found[0])
        session.out.table(titles, cells, [None] * len(cells))
    if len(found) == limit:
        session.out.talk(f"the first {limit} rows; --limit N shows more")


def _condition(text: str) -> tuple[str, str]:
    column, equals, value = text.partition("=")
    if not equals:
        raise Misuse("--where", f"{text!r} is not COLUMN=VALUE")
    return column, value


def _cell(value: object) -> str:
    return EMPTY if value is None else clean(str(value))


@command(app, "run", needs=PROJECTOR)
async def run(
    session: Session,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Only these; else all declared.")
    ] = None,
    *,
    module: Modules = None,
    once: Annotated[bool, typer.Option("--once", help="End when no event is new.")] = False,
) -> int:
    """Keep projections up with new events, until Ctrl-C.

    Any number of processes may do so.
    """
    chosen = await chosen_projections(session, module, names or ())
    async with session.database() as database:
        for projection in chosen:
            if await install(database.pool, projection):
                session.out.talk(f"projection {projection.name} is new: its table is created")
        if not once:
            session.out.talk(f"keeping up: {', '.join(one.name for one in chosen)}; Ctrl-C ends it")
            await _together([(one.name, Projector(database.pool, one)) for one in chosen])
        failed = False
        for projection in chosen:
            try:
                events = await CatchUp(database.pool, projection).to_the_end()
            except ProjectionFailed as error:
                failed = True
                session.out.talk(str(error))
                continue
            row = {"name": projection.name, "events": events}
            session.out.json(row) if session.as_json else session.out.line(
                f"{projection.name}: {events:,} events taken"
            )
    return INTEGRITY if failed else OK


@command(app, "pause", needs=PROJECTOR)
async def pause(session: Session, name: Name) -> None:
    """Pause a projection: no process feeds it until it is resumed."""
    async with session.database() as database:
        await statuses_of.pause(database.pool, name)
    session.out.json({"name": name, "paused": True}) if session.as_json else session.out.talk(
        f"{name} is paused"
    )


@command(app, "resume", needs=PROJECTOR)
async def resume(session: Session, name: Name) -> None:
    """Resume a paused projection; one that stopped tries its event again.

    Runs that it has set aside are tried again.
    """
    async with session.database() as database:
        retried = await statuses_of.resume(database.pool, name)
    if session.as_json:
        session.out.json({"name": name, "resumed": True, "retried": retried})
        return
    again = f"; {retried:,} runs that were set aside are tried again" if retried else ""
    session.out.talk(f"{name} is resumed{again}")


@command(app, "skip", needs=PROJECTOR)
async def skip(
    session: Session,
    name: Name,
    *,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="The reason; recorded.")],
    run_id: Annotated[
        str | None,
        typer.Option(
            "--run",
            metavar="RUN",
            help="The run of another event, by its whole id; with --version.",
        ),
    ] = None,
    version: Annotated[
        int | None,
        typer.Option("--version", metavar="N", help="The version of that event; with --run."),
    ] = None,
    actor: Actor = None,
    module: Modules = None,
) -> None:
    """Skip an event for good; the skip is recorded.

    By default the event at which the projection stopped; with --run and --version another one that a
    rebuild cannot fold.
    """
    actor_name = actor or Settings.load().actor or default_actor()
    if (run_id is None) != (version is None):
        raise Misuse("--run and --version", "name an event only together")
    async with session.database() as database:
        if run_id is None or version is None:
            skipped, number = await statuses_of.skip(
                database.pool, name, actor=actor_name, reason=reason
            )
        else:
            (projection,) = await chosen_projections(session, module, [name])
            await statuses_of.skip_event(
                database.pool, projection, run_id, version, actor=actor_name, reason=reason
            )
            skipped, number = check_run_id(run_id), version
    if session.as_json:
        session.out.json({"name": name, "run_id": skipped, "version": number, "skipped": True})
    session.out.talk(f"{name} skips version {number} of run {skipped}")


@command(app, "drop", needs=PROJECTOR)
async def drop(session: Session, name: Name) -> None:
    """Remove a projection: its view, its tables and its checkpoint. The events stay.

    A projection that ships, or is declared, is new again when it is run.
    """
    async with session.database() as database:
        dropped = await refold.drop(database.pool, name)
    if session.as_json:
        session.out.json({"name": name, "dropped": dropped})
        return
    session.out.line(f"{name} is dropped" + (f", with {', '.join(dropped)}" if dropped else ""))


@command(app, "rebase", needs=OWNER)
async def rebase(session: Session) -> None:
    """Restart the feed after the events were restored into another cluster.

    The feed is then read by the new cluster's transaction ids.
    """
    async with session.database() as database:
        [row] = await fetch(database.pool, "SELECT ledger.feed_rebase() AS generation")
    if session.as_json:
        session.out.json({"generation": row["generation"]})
    session.out.talk(
        f"generation {row['generation']} of the feed has begun; projections and subscriptions continue"
    )


async def _statuses(session: Session, module: Sequence[str] | None) -> list[Status]:

    async with session.database() as database:
        return await statuses(
            database.pool, {one.name: one for one in declared_projections(module)}
        )


async def _together(projectors: Sequence[tuple[str, Projector]]) -> None:
    """Run the projectors; one that fails unexpectedly ends alone, and its error comes last."""
    async with asyncio.TaskGroup() as tasks:
        running = [
            tasks.create_task(_keep(name, projector, last=len(projectors) == 1))
            for name, projector in projectors
        ]
    for task in running:
        if (error := task.result()) is not None:
            raise error


async def _keep(name: str, projector: Projector, *, last: bool) -> Exception | None:
    try:
        await projector.run()
    except Exception as error:
        # The function of one projection must not end the others.
        if not last:
            log.logger(projection=name).error(
                log_names.PROJECTION_INTERRUPTED, reason=f"{type(error).__name__}: {error}"
            )
        return error
    return None


def _write(out: Output, one: Status) -> None:
    skipped = f", {one.skipped:,} skipped" if one.skipped else ""
    skipped += f", {one.set_aside:,} runs set aside" if one.set_aside else ""
    out.line(
        f"{one.name} version {one.version}: {one.state}, {one.events:,} events, {one.behind:,} behind{skipped}"
    )
    if one.error is not None:
        place = f"version {one.event_version} of " if one.event_version is not None else ""
        what = "set aside from" if one.set_aside and one.state != "failed" else "stopped at"
        out.line(f"  {what} {place}run {one.run_id}, project {clean(one.project_id)}")
        out.line(f"  {clean(one.error)}")
        if one.set_aside and one.state != "failed":
            out.talk(f"  fix the cause, then: runfold projections resume {one.name}")


rebuilding.register(app)
