"""The rows of a projection, for a look at it; programs read the view with SQL of their own."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import asyncpg

from runfold.ledger.errors import InvalidValue
from runfold.ledger.postgres.connections import FAILURES, Pool, fetch
from runfold.ledger.postgres.errors import translated
from runfold.ledger.reading.snapshot import every_time
from runfold.ledger.validation import check_int
from runfold.projections.declared.projection import IN_FORCE
from runfold.projections.declared.status import require
from runfold.projections.errors import ProjectionNotFound

MAX_ROWS: Final = 10_000
_ANY: Final = datetime(2000, 1, 1)  # noqa: DTZ001  between the infinities, which have no zone
_ANOTHER_TABLE: Final = {"42P01", "42703"}
"""No such table or column: another version took its place, or it was dropped, since a look."""
_TABLE: Final = f"""
SELECT format('projection.%I', projection.name) AS view,
  array(SELECT attribute.attname::text FROM pg_attribute AS attribute
    WHERE attribute.attrelid = to_regclass(format('projection.%I', projection.name))
      AND attribute.attnum > 0
    ORDER BY attribute.attnum) AS columns,
  array(SELECT attribute.attname::text FROM pg_index AS index JOIN pg_attribute AS attribute
      ON attribute.attrelid = index.indrelid AND attribute.attnum = ANY (index.indkey::int2[])
    WHERE index.indisprimary
      AND index.indrelid = to_regclass({IN_FORCE})
    ORDER BY array_position(index.indkey::int2[], attribute.attnum)) AS key
FROM ledger.projection AS projection WHERE projection.name = $1
"""
_READABLE: Final = "SELECT to_regclass(format('projection.%I', $1::text)) IS NOT NULL AS is_there"


async def is_readable(pool: Pool, name: str) -> bool:
    """Whether the projection has a view, in which each login sees the rows of its projects.

    Asked of the catalogue: the progress of projections is shown to those with all projects alone.
    """
    [view] = await fetch(pool, _READABLE, name)
    return bool(view["is_there"])


async def rows(
    pool: Pool, name: str, *, where: Mapping[str, str] | None = None, limit: int = 100
) -> list[dict[str, Any]]:
    """Return rows of the projection's view in the order of its key.

    `where` has columns and the texts that their values must read as. A time that Python cannot
    hold, such as one of the year 10000 or an infinite one, is a text that says so.

    Raises ProjectionNotFound, and InvalidValue for a projection without a table or a column that it
    does not have.
    """
    check_int("limit", limit, least=1, most=MAX_ROWS)
    try:
        try:
            return await _rows(pool, name, where or {}, limit)
        except asyncpg.SyntaxOrAccessError as error:
            if error.sqlstate not in _ANOTHER_TABLE:
                raise
            return await _rows(pool, name, where or {}, limit)
    except (*FAILURES, OSError) as error:
        raise translated(error) from error


async def _rows(
    pool: Pool, name: str, where: Mapping[str, str], limit: int
) -> list[dict[str, Any]]:
    await require(pool, name)
    table = next(iter(await fetch(pool, _TABLE, name)), None)
    if table is None:  # dropped just now
        raise ProjectionNotFound(name, ())
    if not table["key"]:
        raise InvalidValue("projection", name, "applies a function and has no rows of its own")
    for column in where:
        if column not in table["columns"]:
            known = ", ".join(table["columns"])
            raise InvalidValue("column", column, f"is not in projection {name}, which has {known}")
    conditions = " AND ".join(
        f'"{column}"::text = ${number}' for number, column in enumerate(where, 2)
    )
    query = (
        f"SELECT * FROM {table['view']}{' WHERE ' + conditions if conditions else ''} "
        f"ORDER BY {', '.join(_quoted(column) for column in table['key'])} LIMIT $1"
    )
    async with pool.acquire() as connection, every_time(connection):
        found = await connection.fetch(query, limit, *where.values())
    return [{name: _value(value) for name, value in row.items()} for row in found]


def _value(value: object) -> object:
    """Return a value; an infinite time, which the driver reads as one without a zone, as text."""
    if isinstance(value, datetime) and value.tzinfo is None:
        return "infinity" if value > _ANY else "-infinity"
    return value


def _quoted(column: str) -> str:
    return f'"{column}"'
