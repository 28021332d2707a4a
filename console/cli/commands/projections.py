"""`runfold projections`: read models, kept up with the events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Annotated, Final

import typer

from runfold.console.cli.commands import (
    projections_rebuild,
    projections_show,
    projections_status,
)
from runfold.console.cli.kit.chosen_projections import Modules, chosen_projections
from runfold.console.cli.kit.duty import until_terminated
from runfold.console.cli.kit.exits import INTEGRITY, OK
from runfold.console.cli.kit.options import OWNER, PROJECTOR, Actor, command, program
from runfold.console.cli.kit.session import Session
from runfold.console.shared.plain import number_of
from runfold.console.shared.values import Misuse
from runfold.ledger import log
from runfold.ledger import names as log_names
from runfold.ledger.errors import CheckpointUnknown, FeedArchived
from runfold.ledger.postgres.access_holes import warn_of_holes
from runfold.ledger.postgres.connections import connect, fetch
from runfold.ledger.postgres.opening import Database
from runfold.ledger.settings import Settings, default_actor
from runfold.ledger.validation import check_run_id
from runfold.projections.declared import dropping, interventions
from runfold.projections.declared.catch_up import CatchUp
from runfold.projections.declared.installing import install
from runfold.projections.declared.projection import Projection
from runfold.projections.errors import ProjectionFailed
from runfold.workers.duties.projector import Projector
from runfold.workers.process.worker_thread import when_it_answers

app: Final = program("Run, inspect and rebuild projections.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The projection.")]


@command(app, "run", rights="*read", needs=PROJECTOR)
async def run(
    session: Session,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Only these; else all declared.")
    ] = None,
    *,
    module: Modules = None,
    once: Annotated[bool, typer.Option("--once", help="End when no event is new.")] = False,
) -> int:
    """Keep projections up with new events, until SIGTERM or Ctrl-C.

    Any number of processes may do so.
    """
    chosen = await chosen_projections(session, module, names or ())
    if not once:
        async with AsyncExitStack() as stack:
            stack.enter_context(until_terminated())
            database = await when_it_answers(partial(_installed, session, chosen), stack)
            production = Settings.load().env == "production"
            await warn_of_holes(database.pool, production=production)
            names_of_all = ", ".join(projection.name for projection in chosen)
            session.out.begin(f"keeping up: {names_of_all}; Ctrl-C ends it")
            await _together([(each.name, Projector(database.pool, each)) for each in chosen])
        return OK
    async with _installed(session, chosen) as database:
        failed = False
        for projection in chosen:
            try:
                events = await CatchUp(database.pool, projection).to_the_end()
            except (ProjectionFailed, FeedArchived, CheckpointUnknown) as error:
                failed = True
                session.out.talk(str(error))
                continue
            row = {"name": projection.name, "events": events}
            session.out.json(row) if session.as_json else session.out.line(
                f"{projection.name}: {number_of(events, 'event')} taken"
            )
    return INTEGRITY if failed else OK


@command(app, "pause", rights="*read", needs=PROJECTOR)
async def pause(session: Session, name: Name) -> None:
    """Pause a projection: no process feeds it until it is resumed."""
    async with session.database() as database:
        await interventions.pause(database.pool, name)
    session.out.json({"name": name, "paused": True}) if session.as_json else session.out.talk(
        f"{name} is paused"
    )


@command(app, "resume", rights="*read", needs=PROJECTOR)
async def resume(session: Session, name: Name) -> None:
    """Resume a paused projection; one that stopped tries its event again.

    Runs that it has set aside are tried again.
    """
    async with session.database() as database:
        retried = await interventions.resume(database.pool, name)
    if session.as_json:
        session.out.json({"name": name, "resumed": True, "retried": retried})
        return
    again = f"; to try again: {number_of(retried, 'run')} set aside" if retried else ""
    session.out.talk(f"{name} is resumed{again}")


@command(app, "skip", rights="*read", needs=PROJECTOR)
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

    By default the event at which the projection stopped; with --run and --version another one
    that a rebuild cannot fold.
    """
    actor_name = actor or Settings.load().actor or default_actor()
    if (run_id is None) != (version is None):
        raise Misuse("--run and --version", "name an event only together")
    async with session.database() as database:
        if run_id is None or version is None:
            skipped, number = await interventions.skip(
                database.pool, name, actor=actor_name, reason=reason
            )
        else:
            (projection,) = await chosen_projections(session, module, [name])
            await interventions.skip_event(
                database.pool, projection, run_id, version, actor=actor_name, reason=reason
            )
            skipped, number = check_run_id(run_id), version
    if session.as_json:
        session.out.json({"name": name, "run_id": skipped, "version": number, "skipped": True})
    session.out.talk(f"{name} skips version {number} of run {skipped}")


@command(app, "drop", rights="*read", needs=PROJECTOR)
async def drop(session: Session, name: Name) -> None:
    """Remove a projection: its view, its tables and its checkpoint. The events stay.

    A projection that ships, or is declared, is new again when it is run.
    """
    async with session.database() as database:
        dropped = await dropping.drop(database.pool, name)
    if session.as_json:
        session.out.json({"name": name, "dropped": dropped})
        return
    session.out.line(f"{name} is dropped" + (f", with {', '.join(dropped)}" if dropped else ""))


@command(app, "rebase", rights="owner", needs=OWNER)
async def rebase(session: Session) -> None:
    """Restart the feed after the events were restored into another cluster.

    The feed is then read by the new cluster's transaction ids.
    """
    async with session.database() as database:
        # It looks at the position of every event, which takes as long as there are events.
        prepared = Settings.load().prepared_statements
        connection = await connect(database.url, "runfold rebase", prepared=prepared, deadline=None)
        try:
            [row] = await fetch(connection, "SELECT ledger.feed_rebase() AS generation")
        finally:
            await connection.close()
    if session.as_json:
        session.out.json({"generation": row["generation"]})
    session.out.talk(
        f"generation {row['generation']} of the feed has begun; "
        "projections and subscriptions continue"
    )


@asynccontextmanager
async def _installed(session: Session, chosen: Sequence[Projection]) -> AsyncIterator[Database]:
    async with session.database() as database:
        for projection in chosen:
            if await install(database.pool, projection):
                session.out.talk(f"projection {projection.name} is new: its table is created")
        yield database


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


projections_status.register(app)
projections_show.register(app)
projections_rebuild.register(app)
