"""The roles that logins are granted; they belong to the whole server, not to a database."""

from __future__ import annotations

from typing import Any, Final

import asyncpg

from runfold.ledger.errors import ConfigurationError
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.postgres.locks import LOCK_TIMEOUT

ROLES: Final = ("runfold_worker", "runfold_reader", "runfold_projector", "runfold_auditor")
HAS_POWERS: Final = """(role.rolcanlogin OR role.rolsuper OR role.rolcreaterole
  OR role.rolcreatedb OR role.rolreplication OR role.rolbypassrls)"""
"""Whether a `role` of pg_roles can do more than be granted."""
NO_POWERS: Final = "NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"

_MISSING: Final = """
SELECT wanted.name FROM unnest($1::text[]) WITH ORDINALITY AS wanted (name, number)
WHERE NOT EXISTS (SELECT FROM pg_roles AS role WHERE role.rolname = wanted.name)
ORDER BY wanted.number
"""
UNGRANTABLE: Final = """
SELECT role.rolname::text AS role FROM pg_roles AS role, pg_roles AS owner
WHERE role.rolname = ANY ($1::text[]) AND owner.oid = coalesce(
    (SELECT schema.nspowner FROM pg_namespace AS schema WHERE schema.nspname = 'ledger'),
    current_user::regrole::oid)
  AND NOT owner.rolsuper AND NOT pg_has_role(owner.oid, role.oid, 'MEMBER WITH ADMIN OPTION')
  AND NOT (owner.rolcreaterole AND current_setting('server_version_num')::int < 160000)
ORDER BY array_position($1::text[], role.rolname::text)
"""
"""The roles that the owner of the ledger may not grant: those that it did not make, since 16."""

_OPEN: Final = """
SELECT quote_ident(current_database()) AS database
WHERE has_database_privilege('public', current_database(), 'CONNECT')
"""


async def make_roles(connection: asyncpg.Connection[Any]) -> None:
    """Make the roles that the server lacks, each by itself and outside of any transaction.

    So upgrades of several databases of a server do not wait for each other. Raises
    ConfigurationError, which says what an administrator must run, and the driver's errors.
    """
    await connection.execute(f"SET lock_timeout = '{LOCK_TIMEOUT}'")
    missing = [row["name"] for row in await connection.fetch(_MISSING, ROLES)]
    for role in missing:
        try:
            await connection.execute(f"CREATE ROLE {role} NOLOGIN")
        except (asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
            pass  # the upgrade of another database was faster
        except asyncpg.InsufficientPrivilegeError as error:
            statements = "; ".join(f"CREATE ROLE {name} NOLOGIN" for name in missing)
            raise ConfigurationError(
                f"this login may not make roles: have one that may run {statements}; "
                "and upgrade again"
            ) from error


async def ungrantable_roles(connection: asyncpg.Connection[Any]) -> tuple[str, ...]:
    """Return the roles that the owner of the ledger may not grant to logins."""
    return tuple(row["role"] for row in await connection.fetch(UNGRANTABLE, ROLES))


def who_grants(roles: tuple[str, ...]) -> str:
    """Return what to do about roles that the owner may not grant."""
    return (
        f"the ledger's owner may not grant {', '.join(roles)}, which it did not make: have an "
        "administrator grant them, or give them to the owner WITH ADMIN OPTION"
    )


async def open_database(source: Any) -> str | None:
    """Return the database's name, quoted, if every login of the server may connect to it."""
    rows = await fetch(source, _OPEN)
    return rows[0]["database"] if rows else None


def who_closes(database: str) -> str:
    """Return what to do about a database that every login of the server may connect to."""
    return (
        f"every login of the server may connect to {database}: "
        f"its owner runs REVOKE CONNECT ON DATABASE {database} FROM PUBLIC"
    )
