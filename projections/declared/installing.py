"""A projection in the database: its table, view and checkpoint, held to the declaration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeAlias

import asyncpg

from runfold.ledger.errors import InvalidValue
from runfold.ledger.modules import import_module
from runfold.ledger.postgres.connections import FAILURES, Pool
from runfold.ledger.postgres.errors import translated
from runfold.projections.declared.projection import Projection
from runfold.projections.declared.statements import required
from runfold.projections.errors import DeclaredTwice, OtherVersion, Redeclared, TableChanged

Connection: TypeAlias = "asyncpg.Connection[Any] | asyncpg.pool.PoolConnectionProxy[Any]"

SHIPPED: Final = tuple(
    f"runfold.projections.models.{name}"
    for name in ("counts", "attempts", "spending", "activity", "approvals")
)
"""The modules whose projections come with the ledger."""

_FOUND: Final = "SELECT version, digest FROM ledger.projection WHERE name = $1"
_START: Final = """
INSERT INTO ledger.projection (name, version, digest, generation, snapshot, position)
VALUES ($1, $2, $3, 1, '1:1:@0', 0) ON CONFLICT (name) DO NOTHING RETURNING name
"""
"""Waits for another process that installs it, and then finds it installed."""
_MAKE_TABLE: Final = "SELECT ledger.make_projection_table($1, $2, $3, $4, $5)"
_PUBLISH: Final = "SELECT ledger.publish_projection($1, $2, $3, $4, $5)"
_OWNERS: Final = """
SELECT class.relowner = ledger.nspowner AS same, pg_get_userbyid(class.relowner) AS owner
FROM pg_class AS class, pg_namespace AS ledger
WHERE class.oid = to_regclass($1) AND ledger.nspname = 'ledger'
"""
_SHAPE: Final = """
SELECT attribute.attname AS name, format_type(attribute.atttypid, attribute.atttypmod) AS type,
  attribute.attnotnull AS required,
  coalesce(attribute.attnum = ANY (index.indkey::int2[]), false) AS key
FROM pg_attribute AS attribute
LEFT JOIN pg_index AS index ON index.indrelid = attribute.attrelid AND index.indisprimary
WHERE attribute.attrelid = to_regclass($1) AND attribute.attnum > 0 AND NOT attribute.attisdropped
"""
_FULL_NAMES: Final = {"int": "integer", "timestamptz": "timestamp with time zone"}


def declared(modules: Iterable[str] = ()) -> dict[str, Projection]:
    """Return every projection that ships and those in the given modules, by name.

    Raises InvalidValue for a module that is not there or declares none, ModuleBroken for one that
    raises, DeclaredTwice for a name with two versions.
    """
    projections: list[Projection] = []
    for module in (*SHIPPED, *modules):
        values = vars(import_module("module of projections", module)).values()
        own = [value for value in values if isinstance(value, Projection)]
        if not own:
            raise InvalidValue("module of projections", module, "declares no projection")
        projections += [
            projection
            for projection in own
            if not any(projection is other for other in projections)
        ]
    for name, times in Counter(projection.name for projection in projections).items():
        if times > 1:
            raise DeclaredTwice(
                name, [projection.version for projection in projections if projection.name == name]
            )
    return {projection.name: projection for projection in projections}


async def install(pool: Pool, projection: Projection) -> bool:
    """Make the projection's table and checkpoint, or check what is there; return whether it is new.

    Raises OtherVersion, Redeclared, TableChanged, or AccessDenied without the role
    runfold_projector.
    """
    try:
        async with pool.acquire() as connection:
            return await install_on(connection, projection)
    except (*FAILURES, OSError) as error:
        raise translated(error) from error


async def install_on(connection: Any, projection: Projection) -> bool:
    """Install the projection over an open connection, as `install` does.

    Raises OtherVersion, Redeclared or TableChanged.
    """
    async with connection.transaction():
        installed = await connection.fetchrow(_FOUND, projection.name)
        if installed is None:
            if await _created(connection, projection):
                return True
            installed = await connection.fetchrow(_FOUND, projection.name)
        if installed["version"] != projection.version:
            raise OtherVersion(projection.name, projection.version, installed["version"])
        if installed["digest"] != projection.digest:
            raise Redeclared(projection.name, projection.version)
        await check_table(connection, projection)
        return False


async def check_table(
    connection: Connection, projection: Projection, table: str | None = None
) -> None:
    """Raise TableChanged unless the table has the columns, types and key that are declared."""
    if projection.apply is not None:
        return
    name = table or projection.table
    have = {row["name"]: row for row in await connection.fetch(_SHAPE, name)}
    want = projection.column_types()
    wrong = (
        [f"column {column} is missing" for column in want if column not in have]
        if have
        else ["it is gone"]
    )
    wrong += [f"column {column} does not belong there" for column in have if column not in want]
    for column, type_ in want.items():
        if have and column in have:
            wrong += _differences(column, have[column], type_, projection)
    owners = await connection.fetchrow(_OWNERS, name)
    if owners is not None and not owners["same"]:
        wrong.append(f"it belongs to {owners['owner']}, not to the ledger's owner")
    if wrong:
        raise TableChanged(projection.name, name, wrong)


def _differences(column: str, have: Any, type_: str, projection: Projection) -> Sequence[str]:
    type_ = _FULL_NAMES.get(type_, type_)
    checks = (
        (have["type"] == type_, f"column {column} is {have['type']}, not {type_}"),
        (
            have["required"] == (column in required(projection)),
            f"column {column} has another NOT NULL",
        ),
        (
            have["key"] == (column in projection.key),
            f"column {column} has another place in the primary key",
        ),
    )
    return [difference for fine, difference in checks if not fine]


async def publish(connection: Connection, projection: Projection) -> None:
    """Point the view that readers use at the current version."""
    await connection.execute(
        _PUBLISH,
        projection.name,
        projection.version,
        [*projection.key, *projection.columns],
        [*projection.derived],
        [*projection.derived.values()],
    )


async def make_table(connection: Connection, projection: Projection, table: str) -> None:
    """Make the projection's table under a name; the ledger's owner owns it."""
    types = projection.column_types()
    await connection.execute(
        _MAKE_TABLE,
        table,
        [*types],
        [*types.values()],
        sorted(required(projection)),
        [*projection.key],
    )


async def _created(connection: Connection, projection: Projection) -> bool:
    """Create the projection; return False if it is there."""
    identity = (projection.name, projection.version, projection.digest)
    if not await connection.fetchval(_START, *identity):
        return False
    if projection.apply is None:
        await make_table(connection, projection, projection.relation)
        await publish(connection, projection)
    return True
