"""`runfold projections rebuild`: fold the events again, compare, and replace wrong rows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Annotated, Final, TypedDict

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from runfold.console.cli.kit.chosen_projections import Modules, chosen_projections
from runfold.console.cli.kit.exits import INTEGRITY, OK
from runfold.console.cli.kit.options import REBUILDER, Actor, Reason, command
from runfold.console.cli.kit.output import Output, console
from runfold.console.cli.kit.rights import check
from runfold.console.cli.kit.session import Session
from runfold.console.shared.plain import number_of, span
from runfold.console.shared.values import instant
from runfold.ledger import Ledger
from runfold.ledger.validation import check_int
from runfold.projections.declared.dropping import drop_replaced
from runfold.projections.declared.exchange import Order
from runfold.projections.declared.projection import Projection
from runfold.projections.declared.refold import Refolded, refold, refold_until
from runfold.projections.rebuild_plan import RebuildProgress
from runfold.projections.state.replay import Replayed, replay, replay_until
from runfold.projections.state.replay import drop_replaced as replay_tables
from runfold.projections.state.run_state import TABLE

_SPARE: Final = 3
"""Connections that a rebuild needs besides those that fill ranges."""


async def rebuild(
    session: Session,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="The projection: run_state, one that ships, or your own."
        ),
    ],
    *,
    until: Annotated[
        str | None,
        typer.Option(
            "--until",
            metavar="TIME",
            help="The state at that time, in a table beside the live one.",
        ),
    ] = None,
    connections: Annotated[
        int, typer.Option("--connections", metavar="N", help="Ranges to fill at the same time.")
    ] = 2,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first run that cannot be folded.")
    ] = False,
    module: Modules = None,
    drop_old: Annotated[
        bool,
        typer.Option(
            "--drop-old", help="Only drop the tables of rebuilds that ended or broke off."
        ),
    ] = False,
    actor: Actor = None,
    reason: Reason = None,
) -> int:
    """Fold every history again, compare, and replace the rows that are wrong.

    Writers continue meanwhile; a rebuild that was killed resumes.
    """
    projection = None
    if name != TABLE and not drop_old:  # what is dropped needs no declaration
        (projection,) = await chosen_projections(session, module, [name], besides=[TABLE])
    when = None if until is None else instant("--until", until)
    async with session.ledger() as ledger:
        if name == TABLE:
            await check(ledger.pool, "owner")
        if drop_old:
            await _drop_old(session.out, ledger, name)
            return OK
        check_int(
            "--connections (three less than RUNFOLD_POOL_SIZE at most)",
            connections,
            least=1,
            most=ledger.pool.get_max_size() - _SPARE,
        )
        with _bar(name, shown=not session.as_json) as advance:
            how = _How(connections=connections, strict=strict, on_progress=advance)
            done: Replayed | Refolded
            if projection is not None:
                order = Order(actor or ledger.actor, reason or f"rebuild of {name}")
                done = await _refolded(ledger, projection, when, how, order)
            else:
                why = reason or f"rebuild of {name}"
                done = await _replayed(ledger, when, how, actor or ledger.actor, why)
    _write(session.out, name, done, as_of=when is not None)
    return INTEGRITY if done.bad else OK


class _How(TypedDict):
    """How a rebuild goes about its work."""

    connections: int
    strict: bool
    on_progress: Callable[[RebuildProgress], None] | None


async def _drop_old(out: Output, ledger: Ledger, name: str) -> None:
    tables = await (replay_tables(ledger) if name == TABLE else drop_replaced(ledger.pool, name))
    for table in tables:
        out.json({"dropped": table}) if out.as_json else out.line(f"dropped {table}")
    if not tables:
        out.talk("no old rows are kept")


async def _refolded(
    ledger: Ledger, projection: Projection, when: datetime | None, how: _How, order: Order
) -> Refolded:
    if when is None:
        return await refold(ledger.pool, projection, order=order, **how)
    return await refold_until(ledger.pool, projection, when, **how)


async def _replayed(
    ledger: Ledger, when: datetime | None, how: _How, actor: str, reason: str
) -> Replayed:
    if when is None:
        return await replay(ledger, actor=actor, reason=reason, **how)
    return await replay_until(ledger, when, **how)


def _write(out: Output, name: str, done: Replayed | Refolded, *, as_of: bool) -> None:
    if out.as_json:
        out.json(done)
        return
    counts = done.progress
    for bad in done.bad:
        out.line(f"cannot be folded: run {bad.run_id}: {bad.error}")
    resumed = ", resumed" if done.resumed else ""
    out.line(
        f"{number_of(counts.rows, 'row')} rebuilt from {number_of(counts.events, 'event')}"
        f"{resumed}; {counts.errors:,} cannot be folded"
    )
    if as_of:
        out.line(f"the state at that time is in {done.kept_in}")
        return
    if done.bad and isinstance(done, Refolded):
        out.talk(
            "they are set aside; fix the cause and try them again: "
            f"runfold projections resume {name}"
        )
    wrong = (
        "nothing to compare it with"
        if done.wrong is None
        else f"{number_of(done.wrong, 'row')} {'was' if done.wrong == 1 else 'were'} wrong"
    )
    out.line(wrong + (f"; the old rows are kept in {done.kept_in}" if done.kept_in else ""))
    if done.kept_in:
        out.talk(f"to drop the old rows: runfold projections rebuild {name} --drop-old")


@contextmanager
def _bar(name: str, *, shown: bool) -> Iterator[Callable[[RebuildProgress], None] | None]:
    """Show ranges, rate and time left on a terminal; nothing elsewhere."""
    if not shown or not sys.stderr.isatty():
        yield None
        return

    columns = (
        TextColumn(f"rebuilding {name}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console(sys.stderr), transient=True) as bar:
        task = bar.add_task("", total=None)

        def advance(progress: RebuildProgress) -> None:
            left = (
                ""
                if progress.seconds_left is None
                else f", {span(timedelta(seconds=progress.seconds_left))} left"
            )
            description = (
                f"{number_of(progress.events, 'event')}, "
                f"{progress.events_per_second:,.0f} a second{left}"
            )
            bar.update(
                task, completed=progress.done, total=progress.ranges, description=description
            )

        yield advance


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "rebuild", rights="*read", needs=REBUILDER)(rebuild)
