"""The one reader of what is installed in schema `ledger`: for doctor and for an upgrade.

It reads the catalogs themselves, not the comment on the schema that says what was installed last.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from runfold.ledger.postgres.connections import fetch
from runfold.ledger.postgres.objects import (
    Function,
    Grant,
    Installed,
    InstalledGrant,
    Owner,
    Policy,
    Trigger,
    setting,
)

_FUNCTIONS: Final = """
SELECT p.proname::text AS name, p.oid::regprocedure::text AS signature, p.prosrc AS body,
  coalesce(p.proconfig, '{}') AS settings, array_remove(ARRAY[
    (SELECT l.lanname::text FROM pg_language AS l WHERE l.oid = p.prolang),
    CASE p.provolatile WHEN 'i' THEN 'IMMUTABLE' WHEN 's' THEN 'STABLE' END,
    CASE WHEN p.proisstrict THEN 'STRICT' END, CASE WHEN p.proleakproof THEN 'LEAKPROOF' END,
    CASE p.proparallel WHEN 's' THEN 'PARALLEL SAFE' END,
    CASE WHEN p.prosecdef THEN 'SECURITY DEFINER' END
  ], NULL) AS traits
FROM pg_proc AS p WHERE p.pronamespace = 'ledger'::regnamespace ORDER BY 2
"""
_VIEWS: Final = """
SELECT c.relname::text AS name, pg_get_viewdef(c.oid) AS definition,
  array_to_string(c.reloptions, ' ') AS options
FROM pg_class AS c WHERE c.relnamespace = 'ledger'::regnamespace AND c.relkind IN ('v', 'm')
ORDER BY 1
"""
_TRIGGERS: Final = """
SELECT c.relname::text AS table, t.tgname::text AS name, t.tgenabled::text AS enabled,
  c.relispartition AS part, f.pronamespace = 'ledger'::regnamespace AS ours,
  pg_get_triggerdef(t.oid) AS definition
FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid JOIN pg_proc AS f ON f.oid = t.tgfoid
WHERE c.relnamespace = 'ledger'::regnamespace AND NOT t.tgisinternal ORDER BY 1, 2
"""
_OWNERS: Final = """
SELECT o.kind, CASE WHEN n.nspname <> 'ledger' AND o.kind <> 'schema'
    THEN n.nspname || '.' ELSE '' END || o.name AS name, pg_get_userbyid(o.owner)::text AS owner,
  pg_get_userbyid(l.nspowner)::text AS expected
FROM pg_namespace AS l, pg_namespace AS n CROSS JOIN LATERAL (
  SELECT 'schema' AS kind, n.nspname AS name, n.nspowner AS owner
  UNION ALL
  SELECT 'relation', c.relname, c.relowner FROM pg_class AS c
  WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
  UNION ALL
  SELECT 'function', p.proname, p.proowner FROM pg_proc AS p WHERE p.pronamespace = n.oid
) AS o
WHERE l.nspname = 'ledger' AND n.nspname IN ('ledger', 'projection') ORDER BY o.kind, o.name
"""
_GRANTS: Final = """
SELECT o.name::text AS name,
  CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee)::text END AS role,
  a.privilege_type AS privilege, a.is_grantable AS passed_on, o.part
FROM (
  SELECT c.relname AS name, c.relacl AS acl, c.relowner AS owner, c.relispartition AS part
  FROM pg_class AS c
  WHERE c.relnamespace = 'ledger'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
  UNION ALL
  SELECT c.relname || '.' || a.attname, a.attacl, c.relowner, c.relispartition
  FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
  WHERE c.relnamespace = 'ledger'::regnamespace AND a.attacl IS NOT NULL
  UNION ALL
  SELECT p.proname, coalesce(p.proacl, acldefault('f', p.proowner)), p.proowner, false
  FROM pg_proc AS p WHERE p.pronamespace = 'ledger'::regnamespace
  UNION ALL
  SELECT 'schema ' || n.nspname, n.nspacl, n.nspowner, false
  FROM pg_namespace AS n WHERE n.nspname IN ('ledger', 'projection')
) AS o CROSS JOIN LATERAL aclexplode(o.acl) AS a
WHERE a.grantee <> o.owner ORDER BY 1, 2, 3
"""
_ADDED: Final = """
SELECT 'rule ' || r.rulename || ' of ' || c.relname AS name
FROM pg_rewrite AS r JOIN pg_class AS c ON c.oid = r.ev_class
WHERE c.relnamespace = 'ledger'::regnamespace AND r.rulename <> '_RETURN'
UNION ALL
SELECT 'forced row security of ' || c.relname FROM pg_class AS c
WHERE c.relnamespace = 'ledger'::regnamespace AND c.relforcerowsecurity
ORDER BY 1
"""
_SECURED: Final = """
SELECT c.relname::text AS name, c.relispartition AS part FROM pg_class AS c
WHERE c.relnamespace = 'ledger'::regnamespace AND c.relrowsecurity ORDER BY 1
"""
_POLICIES: Final = """
SELECT p.tablename::text AS relation, p.policyname::text AS policy, p.cmd AS command,
  p.permissive AS permissive, array_to_string(p.roles, ',') AS role, p.qual AS rule,
  p.with_check AS with_check
FROM pg_policies AS p WHERE p.schemaname = 'ledger' ORDER BY 1, 2
"""
_PLAIN: Final = " SELECT ledger.clock() "
_KEPT: Final = re.compile(
    r" SELECT greatest\(ledger\.clock\(\), '[-0-9 :.+]+'::timestamptz"
    r" \+ 0\.9 \* \(ledger\.clock\(\) - '[-0-9 :.+]+'::timestamptz\)\) "
)
"""The body of now() that ledger/sql/operations/keep_time.sql puts there for a while."""


async def installed(source: Any) -> Installed:
    """Read the objects of schema `ledger`, which must exist."""
    return Installed(
        functions=[
            (row["name"], row["signature"], _function(row))
            for row in await fetch(source, _FUNCTIONS)
        ],
        views={
            row["name"]: (row["definition"], row["options"]) for row in await fetch(source, _VIEWS)
        },
        triggers=[Trigger(**row) for row in await fetch(source, _TRIGGERS)],
        owners=[Owner(**row) for row in await fetch(source, _OWNERS)],
        grants=[
            InstalledGrant(
                Grant(row["name"], row["role"], row["privilege"]), row["passed_on"], row["part"]
            )
            for row in await fetch(source, _GRANTS)
        ],
        secured=frozenset(row["name"] for row in await fetch(source, _SECURED) if not row["part"]),
        policies=frozenset(Policy(**row) for row in await fetch(source, _POLICIES)),
        added=[row["name"] for row in await fetch(source, _ADDED)],
    )


def _function(row: Mapping[str, Any]) -> Function:
    settings = frozenset(map(setting, row["settings"]))
    body = _PLAIN if row["name"] == "now" and _KEPT.fullmatch(row["body"]) else row["body"]
    return Function(body, settings, frozenset(row["traits"]))
