"""The installed schema: whether it may be upgraded, and whether it is what this code left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from runfold.ledger.errors import ConfigurationError
from runfold.ledger.postgres.compatibility import ENCODING, wrong_encoding
from runfold.ledger.postgres.installed_objects import installed
from runfold.ledger.postgres.server_roles import ROLES

if TYPE_CHECKING:  # SQLAlchemy takes a second to import
    from sqlalchemy.ext.asyncio import AsyncConnection

_ENCODING: Final = "SELECT current_setting('server_encoding')"
_STRANGE: Final = """
SELECT format('%s of %s', o.name, pg_get_userbyid(o.owner)) FROM (
  SELECT 'schema ' || n.nspname AS name, n.nspowner AS owner, 0 AS rank
  FROM pg_namespace AS n WHERE n.nspname IN ('ledger', 'projection')
  UNION ALL
  SELECT n.nspname || '.' || c.relname, c.relowner, 1
  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
  WHERE n.nspname IN ('ledger', 'projection') AND c.relkind <> 'i'
  UNION ALL
  SELECT n.nspname || '.' || p.proname || '()', p.proowner, 2
  FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
  WHERE n.nspname IN ('ledger', 'projection')
  UNION ALL
  SELECT 'type ' || n.nspname || '.' || t.typname, t.typowner, 3
  FROM pg_type AS t JOIN pg_namespace AS n ON n.oid = t.typnamespace
  WHERE n.nspname IN ('ledger', 'projection')
) AS o
WHERE o.owner <> (SELECT r.oid FROM pg_roles AS r WHERE r.rolname = current_user)
ORDER BY o.rank, o.name LIMIT 5
"""
_FOREIGN: Final = """
SELECT c.relname FROM pg_class AS c
WHERE c.relnamespace = to_regnamespace('ledger') AND to_regclass('ledger.alembic_version') IS NULL
UNION ALL
SELECT p.proname || '()' FROM pg_proc AS p
WHERE p.pronamespace = to_regnamespace('ledger')
  AND to_regclass('ledger.alembic_version') IS NULL
ORDER BY 1 LIMIT 5
"""
_MIGHTY: Final = """
SELECT r.rolname FROM pg_roles AS r
WHERE r.rolname = ANY ($1::text[])
  AND (r.rolcanlogin OR r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication
    OR r.rolbypassrls)
ORDER BY 1
"""
_COLUMNS: Final = """
SELECT c.relname, a.attname FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
WHERE c.relnamespace = to_regnamespace('ledger') AND a.attnum > 0 AND NOT a.attisdropped
"""
_LEFT: Final = """
SELECT obj_description(to_regnamespace('ledger'), 'pg_namespace') AS digest,
  obj_description(to_regclass('ledger.alembic_version'), 'pg_class') AS record
"""


async def refuse_unfit(connection: AsyncConnection) -> None:
    """Raise ConfigurationError for a database that no ledger can be in.

    It is not UTF8, so that hashes would differ from the text; or its schemas are another's, wholly
    or in part: what another role owns it can change, and it would run with this role's rights; or
    somebody made the roles before, with more rights than to be granted.
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
    mighty = (await connection.exec_driver_sql(_MIGHTY, (list(ROLES),))).scalars().all()
    if mighty:
        raise ConfigurationError(
            "these roles are there to be granted, but log in or rule themselves: "
            f"{', '.join(mighty)}; take it from them (ALTER ROLE {mighty[0]} NOLOGIN NOSUPERUSER "
            "NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS)"
        )


async def refuse_older_tables(connection: AsyncConnection) -> None:
    """Raise ConfigurationError for tables that lack columns of this code's, at its own revision.

    Before the first release the first revision changes in place, and no upgrade leads from one form
    of it to the next.
    """
    from runfold.ledger.postgres.tables import metadata

    present = {tuple(row) for row in await connection.exec_driver_sql(_COLUMNS)}
    missing = [
        f"{table.name}.{column.name}"
        for table in metadata.sorted_tables
        for column in table.columns
        if (table.name, column.name) not in present
    ]
    if missing:
        raise ConfigurationError(
            f"the tables lack {', '.join(missing[:5])}: a program from before the first release "
            "made them, and no upgrade leads from there; give the ledger a new database "
            "(the built-in one is in the folder RUNFOLD_HOME)"
        )


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
