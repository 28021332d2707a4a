"""How a database stands: its server, its schema against this code's, and its partitions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from runfold.ledger.errors import NewerSchema, UnsupportedServer
from runfold.ledger.postgres import schema
from runfold.ledger.postgres.connections import OLDEST_SERVER, fetch, schema_revision
from runfold.ledger.postgres.opening import Database

_DIGEST: Final = "SELECT obj_description(to_regnamespace('ledger'), 'pg_namespace') AS digest"
_PARTITIONS: Final = (
    "SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid "
    "WHERE i.inhparent = to_regclass('ledger.event') ORDER BY c.relname"
)
_MONTH: Final = (
    "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC' + make_interval(months => $1), "
    "'\"event_\"YYYY_MM') AS name"
)
_AHEAD: Final = 12


@dataclass(frozen=True, slots=True)
class Standing:
    """What a database is, beside what this code needs."""

    server: str
    supported: bool
    revision: str | None
    wanted: str
    functions_current: bool
    newer: bool
    partitions: tuple[str, ...]
    months_ahead: int
    """Whole months after this one that have a partition; -1 if not even this month has one."""

    @property
    def current(self) -> bool:
        """Tell whether the schema and its functions are this code's."""
        return self.revision == self.wanted and self.functions_current


async def standing(database: Database) -> Standing:
    """Look at a database; nothing is changed, and it need not have a schema."""
    number, found = await schema_revision(database.pool)
    wanted = schema.head()
    (row,) = await fetch(database.pool, _DIGEST)
    partitions = (
        tuple(row["relname"] for row in await fetch(database.pool, _PARTITIONS)) if found else ()
    )
    return Standing(
        server=f"{number // 10_000}.{number % 10_000}",
        supported=number // 10_000 >= OLDEST_SERVER,
        revision=found,
        wanted=wanted,
        functions_current=row["digest"] == schema.digest(),
        newer=found is not None and found not in schema.revisions(),
        partitions=partitions,
        months_ahead=await _months_ahead(database, partitions),
    )


async def _months_ahead(database: Database, partitions: tuple[str, ...]) -> int:
    for month in range(_AHEAD + 1):
        (row,) = await fetch(database.pool, _MONTH, month)
        if row["name"] not in partitions:
            return month - 1
    return _AHEAD


async def upgrade(database: Database) -> tuple[Standing, Standing]:
    """Bring a database to this code's schema; give how it stood before and stands now.

    Raises UnsupportedServer or NewerSchema, with nothing changed.
    """
    before = await standing(database)
    if not before.supported:
        raise UnsupportedServer(before.server, OLDEST_SERVER)
    if before.newer and before.revision is not None:
        raise NewerSchema(before.revision, before.wanted)
    await schema.upgrade(database.url)
    return before, await standing(database)
