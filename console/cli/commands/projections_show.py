"""`runfold projections show`: the rows of a projection."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

import typer

from runfold.console.cli.kit.options import command
from runfold.console.cli.kit.output import EMPTY
from runfold.console.cli.kit.session import Session
from runfold.console.shared.plain import number_of
from runfold.console.shared.values import Misuse
from runfold.projections.declared.rows import rows


async def show(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The projection.")],
    *,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="COLUMN=VALUE", help="Only rows with this value."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", help="At most this many.")] = 50,
) -> None:
    """Show the rows of a projection, in the order of its key."""
    conditions = dict(_condition(text) for text in where or ())
    async with session.database() as database:
        shown = await rows(database.pool, name, where=conditions, limit=limit)
    if session.as_json:
        for row in shown:
            session.out.json(row)
    elif shown:
        cells = [tuple(_cell(value) for value in row.values()) for row in shown]
        titles = tuple(column.upper() for column in shown[0])
        session.out.table(titles, cells, [None] * len(cells))
    else:
        session.out.talk("no rows")
    if len(shown) == limit:
        session.out.talk(f"the first {number_of(limit, 'row')}; --limit N shows more")


def _condition(text: str) -> tuple[str, str]:
    column, equals, value = text.partition("=")
    if not equals:
        raise Misuse("--where", f"{text} is not COLUMN=VALUE")
    return column, value


def _cell(value: object) -> str:
    match value:
        case None:
            return EMPTY
        case Decimal():
            return f"{value:f}"
        case bytes():
            return f"\\x{value.hex()}"  # as --where takes it
        case bool():
            return str(value).lower()
        case list():
            return ", ".join(map(str, value)) or EMPTY
        case _:
            return str(value)


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "show", rights="*read | audit")(show)
