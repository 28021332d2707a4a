"""Where a column's values come from: a column of the event, or an SQL expression over it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from runfold.ledger.errors import InvalidValue
from runfold.ledger.postgres.tables import event as event_table

_SQL_TYPES: Final = {
    "DATETIME": "timestamptz",
    "BLOB": "bytea",
    "CHAR(32)": "uuid",
    "ARRAY": "text[]",
    "INTEGER": "int",
}
COLUMNS: Final = {
    column.name: _SQL_TYPES.get(
        str(column.type), str(column.type).lower().partition("(")[0]
    ).replace("varchar", "text")
    for column in event_table.columns
    if column.name != "txid"
}
"""The columns of an event and their types."""


@dataclass(frozen=True, slots=True)
class Source:
    """A value that each event has: an SQL expression over the event `event`, and its type."""

    sql: str
    type: str
    schema_versions: tuple[int, ...] | None = None
    """The schema versions of the event for which the expression holds; None: all."""


def as_source(source: str | Source) -> Source:
    """Return the source that a declaration names; raise InvalidValue for an unknown column."""
    if isinstance(source, Source):
        return source
    if source not in COLUMNS:
        raise InvalidValue(
            "source", source, f"is not a column of an event; these are: {', '.join(COLUMNS)}"
        )
    return Source(f"event.{source}", COLUMNS[source])
