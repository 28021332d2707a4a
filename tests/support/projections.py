"""A projection of a user's own events, and events that it cannot fold."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from runfold.ledger import Ledger
from runfold.projections import Projection, count, field, of_run, total

_APPEND = "SELECT * FROM ledger.append($1, 'test', $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"


def sizes(version: int = 1, **changes: Any) -> Projection:
    """Count the users' reads of each kind and add up a field of their payload."""
    declaration: dict[str, Any] = {
        "key": {"kind": of_run("kind")},
        "columns": {
            "reads": count({"acme.read"}),
            "size": total(field("size", "int"), {"acme.read"}),
        },
    }
    return Projection("sizes", version, **{**declaration, **changes})


async def read(ledger: Ledger, run: UUID, size: str) -> None:
    """Append a user's own event whose payload has a size; `"many"` cannot be folded by `sizes`."""
    await append(ledger, run, "acme.read", 1, f'{{"size":{size}}}')


async def append(
    ledger: Ledger, run: UUID, type_: str, schema_version: int, body: str | None = None
) -> None:
    """Append an event as a login in another language does."""
    some = [None]
    columns = ([run], some, [type_], [schema_version], some, some, [body], some, some, some, some)
    await ledger.pool.fetch(_APPEND, ledger.project_id, *columns)


async def append_by_newer_code(ledger: Ledger, run: UUID, type_: str) -> None:
    """Append an event of a schema version that this code does not know, past the guards."""
    await append(ledger, run, type_, 1)
    for statement in (
        "ALTER TABLE ledger.event DISABLE TRIGGER refuse_change",
        f"UPDATE ledger.event SET schema_version = 99 WHERE run_id = '{run}' AND type = '{type_}'",
        "ALTER TABLE ledger.event ENABLE ALWAYS TRIGGER refuse_change",
    ):
        await ledger.pool.execute(statement)


async def sizes_of(ledger: Ledger) -> list[tuple[Any, ...]]:
    """Read the projection."""
    rows = await ledger.pool.fetch("SELECT kind, reads, size FROM projection.sizes ORDER BY kind")
    return [tuple(row.values()) for row in rows]
