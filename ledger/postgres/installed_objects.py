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
SELECT function.proname::text AS name, function.oid::regprocedure::text AS signature,
  function.prosrc AS body, coalesce(function.proconfig, '{}') AS settings, array_remove(ARRAY[
    (SELECT language.lanname::text FROM pg_language AS language
      WHERE language.oid = function.prolang),
    CASE function.provolatile WHEN 'i' THEN 'IMMUTABLE' WHEN 's' THEN 'STABLE' END,
    CASE WHEN function.proisstrict THEN 'STRICT' END,
      CASE WHEN function.proleakproof THEN 'LEAKPROOF' END,
    CASE function.proparallel WHEN 's' THEN 'PARALLEL SAFE' END,
    CASE WHEN function.prosecdef THEN 'SECURITY DEFINER' END
  ], NULL) AS traits
FROM pg_proc AS function WHERE function.pronamespace = 'ledger'::regnamespace ORDER BY 2
"""
_VIEWS: Final = """
SELECT view.relname::text AS name, pg_get_viewdef(view.oid) AS definition,
  array_to_string(view.reloptions, ' ') AS options
FROM pg_class AS view WHERE view.relnamespace = 'ledger'::regnamespace
  AND view.relkind IN ('v', 'm')
ORDER BY 1
"""
_TRIGGERS: Final = """
SELECT relation.relname::text AS table, trigger.tgname::text AS name,
  trigger.tgenabled::text AS enabled,
  relation.relispartition AS part, function.pronamespace = 'ledger'::regnamespace AS ours,
  pg_get_triggerdef(trigger.oid) AS definition
FROM pg_trigger AS trigger JOIN pg_class AS relation ON relation.oid = trigger.tgrelid
JOIN pg_proc AS function ON function.oid = trigger.tgfoid
WHERE relation.relnamespace = 'ledger'::regnamespace AND NOT trigger.tgisinternal ORDER BY 1, 2
"""
_OWNERS: Final = """
SELECT owned.kind, CASE WHEN schema.nspname <> 'ledger' AND owned.kind <> 'schema'
    THEN schema.nspname || '.' ELSE '' END || owned.name AS name,
      pg_get_userbyid(owned.owner)::text AS owner,
  pg_get_userbyid(ours.nspowner)::text AS expected
FROM pg_namespace AS ours, pg_namespace AS schema CROSS JOIN LATERAL (
  SELECT 'schema' AS kind, schema.nspname AS name, schema.nspowner AS owner
  UNION ALL
  SELECT 'relation', relation.relname, relation.relowner FROM pg_class AS relation
  WHERE relation.relnamespace = schema.oid AND relation.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
  UNION ALL
  SELECT 'function', function.proname, function.proowner FROM pg_proc AS function
  WHERE function.pronamespace = schema.oid
) AS owned
WHERE ours.nspname = 'ledger' AND schema.nspname IN ('ledger', 'projection')
ORDER BY owned.kind, owned.name
"""
_GRANTS: Final = """
SELECT object.name::text AS name,
  CASE privilege.grantee WHEN 0
    THEN 'PUBLIC' ELSE pg_get_userbyid(privilege.grantee)::text END AS role,
  privilege.privilege_type AS privilege, privilege.is_grantable AS passed_on, object.part
FROM (
  SELECT relation.relname AS name, relation.relacl AS acl, relation.relowner AS owner,
    relation.relispartition AS part
  FROM pg_class AS relation
  WHERE relation.relnamespace = 'ledger'::regnamespace
    AND relation.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
  UNION ALL
  SELECT relation.relname || '.' || attribute.attname, attribute.attacl, relation.relowner,
    relation.relispartition
  FROM pg_attribute AS attribute JOIN pg_class AS relation ON relation.oid = attribute.attrelid
  WHERE relation.relnamespace = 'ledger'::regnamespace AND attribute.attacl IS NOT NULL
  UNION ALL
  SELECT function.proname, coalesce(function.proacl, acldefault('f', function.proowner)),
    function.proowner, false
  FROM pg_proc AS function WHERE function.pronamespace = 'ledger'::regnamespace
  UNION ALL
  SELECT 'schema ' || schema.nspname, schema.nspacl, schema.nspowner, false
  FROM pg_namespace AS schema WHERE schema.nspname IN ('ledger', 'projection')
) AS object CROSS JOIN LATERAL aclexplode(object.acl) AS privilege
WHERE privilege.grantee <> object.owner ORDER BY 1, 2, 3
"""
_ADDED: Final = """
SELECT 'rule ' || rule.rulename || ' of ' || relation.relname AS name
FROM pg_rewrite AS rule JOIN pg_class AS relation ON relation.oid = rule.ev_class
WHERE relation.relnamespace = 'ledger'::regnamespace AND rule.rulename <> '_RETURN'
UNION ALL
SELECT 'forced row security of ' || relation.relname FROM pg_class AS relation
WHERE relation.relnamespace = 'ledger'::regnamespace AND relation.relforcerowsecurity
ORDER BY 1
"""
_SECURED: Final = """
SELECT relation.relname::text AS name FROM pg_class AS relation
WHERE relation.relnamespace = 'ledger'::regnamespace AND relation.relrowsecurity
  AND NOT relation.relispartition
"""
_POLICIES: Final = """
SELECT policy.tablename::text AS relation, policy.policyname::text AS policy, policy.cmd AS command,
  policy.permissive AS permissive, array_to_string(policy.roles, ',') AS role, policy.qual AS rule,
  policy.with_check AS with_check
FROM pg_policies AS policy WHERE policy.schemaname = 'ledger' ORDER BY 1, 2
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
        secured=frozenset(row["name"] for row in await fetch(source, _SECURED)),
        policies=frozenset(Policy(**row) for row in await fetch(source, _POLICIES)),
        added=[row["name"] for row in await fetch(source, _ADDED)],
    )


def _function(row: Mapping[str, Any]) -> Function:
    settings = frozenset(map(setting, row["settings"]))
    body = _PLAIN if row["name"] == "now" and _KEPT.fullmatch(row["body"]) else row["body"]
    return Function(body, settings, frozenset(row["traits"]))
