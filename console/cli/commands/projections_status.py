"""`runfold projections list|status`: which projections there are, and how each fares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

import typer

from runfold.console.cli.kit.chosen_projections import Modules
from runfold.console.cli.kit.exits import INTEGRITY, OK
from runfold.console.cli.kit.options import command
from runfold.console.cli.kit.output import EMPTY, Output
from runfold.console.cli.kit.session import Session
from runfold.console.cli.kit.user_traceback import broken_module_shown
from runfold.console.shared.plain import moment, number_of
from runfold.console.shared.projection_modules import declared_projections
from runfold.projections.declared.status import Status, statuses
from runfold.projections.errors import ProjectionNotFound

_COLOURS: Final = {
    "current": "green",
    "behind": "cyan",
    "paused": "yellow",
    "failed": "bold red",
    "replaced": "red",
}
_TITLES: Final = ("NAME", "VERSION", "STATE", "EVENTS", "BEHIND", "MOVED")


async def list_(session: Session, *, module: Modules = None) -> None:
    """List the projections that are declared or installed, with their status."""
    listed = await _statuses(session, module)
    if session.as_json:
        for projection in listed:
            session.out.json(projection)
        return
    colours = [_COLOURS.get(projection.state) for projection in listed]
    session.out.table(_TITLES, [_row(projection) for projection in listed], colours)


def _row(projection: Status) -> tuple[str, ...]:
    return (
        projection.name,
        str(projection.version),
        projection.state,
        f"{projection.events:,}",
        f"{projection.behind:,}",
        moment(projection.moved_at) if projection.moved_at else EMPTY,
    )


async def status(
    session: Session,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Only this projection; else all.")
    ] = None,
    *,
    module: Modules = None,
) -> int:
    """Show each projection's status: where and why one has stopped, or has set runs aside.

    Exit code 7 if one has stopped or has set a run aside.
    """
    listed = await _statuses(session, module)
    if name is not None:
        known = [projection.name for projection in listed]
        listed = [projection for projection in listed if projection.name == name]
        if not listed:
            raise ProjectionNotFound(name, known)
    for projection in listed:
        if session.as_json:
            session.out.json(projection)
        else:
            _write(session.out, projection)
    wrong = any(projection.state == "failed" or projection.set_aside for projection in listed)
    return INTEGRITY if wrong else OK


def _write(out: Output, projection: Status) -> None:
    skipped = f", {projection.skipped:,} skipped" if projection.skipped else ""
    if projection.set_aside:
        skipped += f", {number_of(projection.set_aside, 'run')} set aside"
    out.line(
        f"{projection.name} version {projection.version}: {projection.state}, "
        f"{number_of(projection.events, 'event')}, {projection.behind:,} behind{skipped}"
    )
    if projection.error is None:
        return
    aside = bool(projection.set_aside) and projection.state != "failed"
    version = projection.event_version
    place = f"version {version} of " if version is not None else ""
    what = "set aside from" if aside else "stopped at"
    if projection.run_id is not None:
        out.line(f"  {what} {place}run {projection.run_id}, project {projection.project_id}")
    out.line(f"  {projection.error}")
    if aside:
        out.talk(f"  fix the cause, then: runfold projections resume {projection.name}")


async def _statuses(session: Session, module: Sequence[str] | None) -> list[Status]:
    with broken_module_shown(as_json=session.as_json):
        declared = {projection.name: projection for projection in declared_projections(module)}
    async with session.database() as database:
        return await statuses(database.pool, declared)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "list", rights="*read | audit")(list_)
    command(app, "status", rights="*read | audit")(status)
