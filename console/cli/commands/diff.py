"""`runfold diff`: what changed in a run between two points, and the events between them."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from runfold.console.cli.kit import event_line
from runfold.console.cli.kit.options import RunId, command, program
from runfold.console.cli.kit.output import EMPTY, Output
from runfold.console.cli.kit.run_id import find_run
from runfold.console.cli.kit.session import Session
from runfold.console.shared.plain import compact, jsonable, number_of
from runfold.console.shared.values import version_or_instant
from runfold.ledger.reading.past import Diff

TITLES: Final = ("COLUMN", "FROM", "TO")
_POINT: Final = "VERSION|TIME"


app: Final = program()


@command(app, "diff", rights="read")
async def diff(
    session: Session,
    run: RunId,
    *,
    start: Annotated[
        str,
        typer.Option(
            "--from", metavar=_POINT, help="After this event, or at this time (with its zone)."
        ),
    ],
    end: Annotated[
        str | None, typer.Option("--to", metavar=_POINT, help="The same for the end; else now.")
    ] = None,
) -> None:
    """Show what changed in a run between two points.

    First the columns that changed, then the events between the points.
    """
    points = (
        version_or_instant(start, "--from"),
        None if end is None else version_or_instant(end, "--to"),
    )
    async with session.ledger() as ledger:
        changes = await ledger.diff(await find_run(ledger, run), *points)
    _write(session.out, changes)


def _write(out: Output, diff: Diff) -> None:
    before, after = diff.before, diff.after
    if out.as_json:
        changes = {name: {"from": old, "to": new} for name, (old, new) in diff.changes.items()}
        events = [event.model_dump() for event in diff.events]
        out.json(
            {
                "run_id": before.run_id,
                "from": before.version,
                "to": after.version,
                "changes": changes,
                "events": events,
            }
        )
        return
    rows = [(name, _cell(old), _cell(new)) for name, (old, new) in diff.changes.items()]
    if rows:
        out.table(TITLES, rows, [None] * len(rows))
    for event in diff.events:
        out.entry(event_line.head(event), event_line.facts(event))
    out.talk(
        f"version {before.version} to {after.version}: "
        f"{number_of(len(rows), 'column')} changed by {number_of(len(diff.events), 'event')}"
    )


def _cell(value: Any) -> str:
    if value is None:
        return EMPTY
    plain = jsonable(value)
    return plain if isinstance(plain, str) else compact(plain)
