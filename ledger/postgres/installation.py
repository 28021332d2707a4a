"""The installed schema: whether it may be upgraded, and whether it is what this code left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from runfold.ledger.errors import ConfigurationError
from runfold.ledger.postgres.compatibility import ENCODING, wrong_encoding
from runfold.ledger.postgres.errors import of_an_unreleased_program
from runfold.ledger.postgres.installed_objects import installed
from runfold.ledger.postgres.server_roles import HAS_POWERS, NO_POWERS, ROLES

if TYPE_CHECKING:  # SQLAlchemy takes a second to import
    from sqlalchemy.ext.asyncio import AsyncConnection

_ENCODING: Final = "SELECT current_setting('server_encoding')"
_STRANGE: Final = """
SELECT format('%s of %s', owned.name, pg_get_userbyid(owned.owner)) FROM (
  SELECT 'schema ' || schema.nspname AS name, schema.nspowner AS owner, 0 AS rank
  FROM pg_namespace AS schema WHERE schema.nspname IN ('ledger', 'projection')
  UNION ALL
  SELECT schema.nspname || '.' || relation.relname, relation.relowner, 1
  FROM pg_class AS relation JOIN pg_namespace AS schema ON schema.oid = relation.relnamespace
  WHERE schema.nspname IN ('ledger', 'projection') AND relation.relkind <> 'i'
  UNION ALL
  SELECT schema.nspname || '.' || function.proname || '()', function.proowner, 2
  FROM pg_proc AS function JOIN pg_namespace AS schema ON schema.oid = function.pronamespace
  WHERE schema.nspname IN ('ledger', 'projection')
  UNION ALL
  SELECT 'type ' || schema.nspname || '.' || type.typname, type.typowner, 3
  FROM pg_type AS type JOIN pg_namespace AS schema ON schema.oid = type.typnamespace
  WHERE schema.nspname IN ('ledger', 'projection')
) AS owned
WHERE owned.owner <> (SELECT role.oid FROM pg_roles AS role WHERE role.rolname = current_user)
ORDER BY owned.rank, owned.name LIMIT 5
"""
_FOREIGN: Final = """
SELECT relation.relname FROM pg_class AS relation
WHERE relation.relnamespace = to_regnamespace('ledger')
  AND to_regclass('ledger.alembic_version') IS NULL
UNION ALL
SELECT function.proname || '()' FROM pg_proc AS function
WHERE function.pronamespace = to_regnamespace('ledger')
  AND to_regclass('ledger.alembic_version') IS NULL
ORDER BY 1 LIMIT 5
"""
_MIGHTY: Final = f"""
SELECT role.rolname FROM pg_roles AS role
WHERE role.rolname = ANY ($1::text[]) AND {HAS_POWERS} ORDER BY 1
"""
_COLUMNS: Final = """
SELECT relation.relname, attribute.attname FROM pg_attribute AS attribute JOIN pg_class AS relation
  ON relation.oid = attribute.attrelid
WHERE relation.relnamespace = to_regnamespace('ledger') AND attribute.attnum > 0
  AND NOT attribute.attisdropped
"""
_UNMADE: Final = """
SELECT format('%I may make no schema in database %I: run GRANT CREATE ON DATABASE %2$I TO %1$I '
  'as an administrator', current_user, current_database())
WHERE NOT has_database_privilege(current_database(), 'CREATE')
"""
_LEFT: Final = """
SELECT obj_description(to_regnamespace('ledger'), 'pg_namespace') AS digest,
  obj_description(to_regclass('ledger.alembic_version'), 'pg_class') AS record
"""


async def refuse_unfit(connection: AsyncConnection) -> None:
    """Raise ConfigurationError for a database that no ledger can be in.

    It is not UTF8, so that hashes would differ from the text; or its schemas are another's, wholly
    or in part: what another role owns it can change, and it would run with this role's rights; or
    somebody made the roles before, with more rights than to be granted; or this role may make no
    schema in it.
    """
    encoding = (await connection.exec_driver_sql(_ENCODING)).scalar_one()
    if encoding != ENCODING:
        raise wrong_encoding(encoding)
    strange = (await connection.exec_driver_sql(_STRANGE)).scalars().all()
    if strange:
        raise ConfigurationError(
            f"the schemas ledger and projection are not wholly this login's: {', '.join(strange)}; "
            "upgrade as their owner "
            "(for a role of yours by options=-c%20role=OWNER in the URL), or give the ledger a "
            "database without such objects"
        )
    foreign = (await connection.exec_driver_sql(_FOREIGN)).scalars().all()
    if foreign:
        raise ConfigurationError(
            f"schema ledger holds objects that are not the ledger's: {', '.join(foreign)}; "
            "give the ledger a database of its own"
        )
    if refused := (await connection.exec_driver_sql(_UNMADE)).scalar():
        raise ConfigurationError(refused)
    mighty = (await connection.exec_driver_sql(_MIGHTY, (list(ROLES),))).scalars().all()
    if mighty:
        raise ConfigurationError(
            "these roles exist to be granted, but log in or have powers of their own: "
            f"{', '.join(mighty)}; take it from them (ALTER ROLE {mighty[0]} {NO_POWERS})"
        )


async def refuse_older_tables(connection: AsyncConnection) -> None:
    """Raise ConfigurationError for tables that lack columns of this code's, at its own revision."""
    from runfold.ledger.postgres.tables import metadata

    present = {tuple(row) for row in await connection.exec_driver_sql(_COLUMNS)}
    missing = [
        f"{table.name}.{column.name}"
        for table in metadata.sorted_tables
        for column in table.columns
        if (table.name, column.name) not in present
    ]
    if missing:
        raise of_an_unreleased_program(f"the tables lack {', '.join(missing[:5])}")


async def is_intact(connection: AsyncConnection, digest: str) -> bool:
    """Whether the functions, views, triggers and grants are as this code's upgrade left them."""
    left = (await connection.exec_driver_sql(_LEFT)).one()
    return left.digest == digest and bool(await recorded_objects(connection))


async def recorded_objects(connection: AsyncConnection) -> dict[str, str]:
    """Return the digests of the objects that the last upgrade installed, by name.

    None at all if the database is not as that upgrade left it.
    """
    left = (await connection.exec_driver_sql(_LEFT)).one()
    lines = (left.record or "").splitlines()
    if lines[:2] != [(await installed(connection)).fingerprint(), left.digest]:
        return {}  # also where somebody else has put a comment in its place
    return dict(line.split(" ", 1) for line in lines[2:])


async def record_installed(
    connection: AsyncConnection, digest: str, objects: Mapping[str, str]
) -> None:
    """Record what was installed, for `is_intact` and `recorded_objects`."""
    fingerprint = (await installed(connection)).fingerprint()
    lines = [fingerprint, digest, *(f"{name} {short}" for name, short in objects.items())]
    text = "\n".join(lines)
    await connection.exec_driver_sql(f"COMMENT ON TABLE ledger.alembic_version IS '{text}'")
