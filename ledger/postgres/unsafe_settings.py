"""Settings of the database that undermine what the ledger promises, whoever made them."""

from __future__ import annotations

from typing import Any, Final

from runfold.ledger.postgres.connections import fetch

_OPEN: Final = r"""
SELECT schema.nspname::text AS name FROM pg_namespace AS schema
CROSS JOIN LATERAL aclexplode(coalesce(schema.nspacl,
  acldefault('n', schema.nspowner))) AS privilege
WHERE privilege.grantee = 0 AND privilege.privilege_type = 'CREATE'
  AND schema.nspname NOT LIKE 'pg\_%' ORDER BY 1
"""
_SETTINGS: Final = """
SELECT coalesce('role ' || role.rolname, 'every role') AS role, each.setting,
  CASE
    WHEN stored.setdatabase = 0
      THEN format('ALTER ROLE %s', coalesce(quote_ident(role.rolname), 'ALL'))
    WHEN stored.setrole = 0 THEN format('ALTER DATABASE %I', current_database())
    ELSE format('ALTER ROLE %I IN DATABASE %I', role.rolname, current_database())
  END || ' RESET ' || split_part(each.setting, '=', 1) AS remedy
FROM pg_db_role_setting AS stored LEFT JOIN pg_roles AS role ON role.oid = stored.setrole
CROSS JOIN LATERAL unnest(stored.setconfig) AS each (setting)
WHERE stored.setdatabase IN (0, (SELECT database.oid FROM pg_database AS database
  WHERE datname = current_database()))
ORDER BY 1, 2
"""
_UNSAFE_SETTINGS: Final = {
    "session_replication_role": "turns triggers off",
    "default_transaction_isolation": "makes an old snapshot decide",
    "default_transaction_read_only": "forbids every command",
    "synchronous_commit": "may lose what was confirmed",
}
"""Settings of roles or databases that undermine what the ledger promises, and how."""
_SAFE_VALUES: Final = frozenset(
    {
        "session_replication_role=origin",
        "default_transaction_isolation=read committed",
        "default_transaction_read_only=off",
        "synchronous_commit=on",
        "synchronous_commit=remote_apply",
        "synchronous_commit=remote_write",
    }
)


async def unsafe_settings(source: Any) -> list[str]:
    """Return what roles are set to, and where everybody may create, in words."""
    return [
        *(
            f"{role} has {setting}, which {_UNSAFE_SETTINGS[setting.split('=')[0]]}: {remedy}"
            for role, setting, remedy in await _settings_of_roles(source)
            if setting.split("=")[0] in _UNSAFE_SETTINGS and setting not in _SAFE_VALUES
        ),
        *(
            f"PUBLIC may create objects in schema {name}: "
            f'REVOKE CREATE ON SCHEMA "{name}" FROM PUBLIC'
            for name in await _open_schemas(source)
        ),
    ]


async def _settings_of_roles(source: Any) -> list[tuple[str, str, str]]:
    """Return what roles, or every role, are set to in this database.

    Each is the role, `name=value`, and the statement that takes the setting back.
    """
    return [(row["role"], row["setting"], row["remedy"]) for row in await fetch(source, _SETTINGS)]


async def _open_schemas(source: Any) -> list[str]:
    """Return the schemas in which everybody may create objects."""
    return [row["name"] for row in await fetch(source, _OPEN)]
