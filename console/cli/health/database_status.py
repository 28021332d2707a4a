"""A database's status: its server, its schema against this code's, and its partitions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from runfold.ledger.errors import NewerSchema, UnsupportedServer
from runfold.ledger.postgres import revisions, schema
from runfold.ledger.postgres.compatibility import OLDEST_SERVER, oldest_code, server_of
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.postgres.opening import Database

_STATUS: Final = (
    "SELECT obj_description(to_regnamespace('ledger'), 'pg_namespace') AS digest,"
    " pg_is_in_recovery() AS standby"
)
_PARTITIONS: Final = (
    "SELECT part.relname FROM pg_inherits AS child JOIN pg_class AS part"
    " ON part.oid = child.inhrelid"
    " WHERE child.inhparent = to_regclass('ledger.event') ORDER BY part.relname"
)
_MONTH: Final = (
    "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC' + make_interval(months => $1), "
    "'\"event_\"YYYY_MM') AS name"
)
_AHEAD: Final = 12


@dataclass(frozen=True, slots=True)
class DatabaseStatus:
    """What a database has, and what this code needs."""

    server: str
    supported: bool
    revision: str | None
    wanted: str
    functions_current: bool
    newer: bool
    oldest_code: str | None
    """The oldest revision whose code works with the schema."""
    partitions: tuple[str, ...]
    months_ahead: int
    """Whole months after this one that have a partition; -1 if not even this month has one."""
    standby: bool

    @property
    def current(self) -> bool:
        """Whether the schema and its functions are this code's."""
        return self.revision == self.wanted and self.functions_current

    @property
    def works(self) -> bool:
        """Whether this code works with the schema: its own, or a newer one that says so."""
        return self.revision == self.wanted or (
            self.newer and self.oldest_code in revisions.known()
        )


async def database_status(database: Database) -> DatabaseStatus:
    """Return a database's status; the database may lack a schema, and nothing is changed."""
    number, _, revision = await server_of(database.pool)
    wanted = revisions.head()
    (row,) = await fetch(database.pool, _STATUS)
    partitions = (
        tuple(row["relname"] for row in await fetch(database.pool, _PARTITIONS)) if revision else ()
    )
    return DatabaseStatus(
        server=f"{number // 10_000}.{number % 10_000}",
        supported=number // 10_000 >= OLDEST_SERVER,
        revision=revision,
        wanted=wanted,
        functions_current=row["digest"] == schema.digest(),
        newer=revision is not None and revision not in revisions.known(),
        oldest_code=await oldest_code(database.pool) if revision else None,
        partitions=partitions,
        months_ahead=await _months_ahead(database, partitions),
        standby=row["standby"],
    )


async def _months_ahead(database: Database, partitions: tuple[str, ...]) -> int:
    for month in range(_AHEAD + 1):
        (row,) = await fetch(database.pool, _MONTH, month)
        if row["name"] not in partitions:
            return month - 1
    return _AHEAD


async def upgraded(
    database: Database,
) -> tuple[DatabaseStatus, DatabaseStatus, schema.Upgrade]:
    """Upgrade a database to this code's schema; return its status before and after, and the rest.

    A newer schema that works with this code stays as it is.

    Raises UnsupportedServer or NewerSchema, with nothing changed.
    """
    before = await database_status(database)
    if not before.supported:
        raise UnsupportedServer(before.server, OLDEST_SERVER)
    if before.newer and not before.works and before.revision is not None:
        raise NewerSchema(before.revision, before.wanted, before.oldest_code)
    upgrade = await schema.upgrade(database.url)
    return before, await database_status(database), upgrade
