"""The one reader of what is installed in schema `ledger`: for doctor and for an upgrade.

It reads the catalogs themselves, not the comment on the schema that says what was installed last.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from runfold.ledger.postgres.connections import fetch

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
_OPEN: Final = r"""
SELECT n.nspname::text AS name FROM pg_namespace AS n
CROSS JOIN LATERAL aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) AS a
WHERE a.grantee = 0 AND a.privilege_type = 'CREATE' AND n.nspname NOT LIKE 'pg\_%' ORDER BY 1
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
_SETTINGS: Final = """
SELECT coalesce('role ' || r.rolname, 'every role') AS role, c.setting
FROM pg_db_role_setting AS s LEFT JOIN pg_roles AS r ON r.oid = s.setrole
CROSS JOIN LATERAL unnest(s.setconfig) AS c (setting)
WHERE s.setdatabase IN (0, (SELECT d.oid FROM pg_database AS d WHERE datname = current_database()))
ORDER BY 1, 2
"""


@dataclass(frozen=True, slots=True)
class Function:
    """A function by its body, its settings, and its traits: its language, STABLE, STRICT ..."""

    body: str
    settings: frozenset[str]
    traits: frozenset[str]


@dataclass(frozen=True, slots=True)
class Grant:
    """A privilege of a role on a table, a function or a schema; schemas are named `schema x`."""

    object: str
    role: str
    privilege: str


@dataclass(frozen=True, slots=True)
class Trigger:
    """A trigger, whether it always fires, and whether it runs a function of the schema."""

    table: str
    name: str
    enabled: str
    part: bool
    ours: bool
    definition: str


@dataclass(frozen=True, slots=True)
class Owner:
    """An object's owner, and the owner that it should have: the schema's."""

    kind: str
    name: str
    owner: str
    expected: str


@dataclass(frozen=True, slots=True)
class InstalledGrant:
    """A privilege that somebody but the owner has; whether they may pass it on."""

    grant: Grant
    passed_on: bool
    part: bool
    """Whether it is on a partition, addressed by itself."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy of row level security."""

    relation: str
    policy: str
    command: str
    role: str
    rule: str | None
    permissive: str = "PERMISSIVE"
    with_check: str | None = None


@dataclass(frozen=True, slots=True)
class Installed:
    """The objects of schema `ledger`, as the catalogs have them."""

    functions: Sequence[tuple[str, str, Function]]
    """The name, the signature and the function."""
    views: Mapping[str, tuple[str, str | None]]
    """The definition and the options by the view's name."""
    triggers: Sequence[Trigger]
    owners: Sequence[Owner]
    grants: Sequence[InstalledGrant]
    secured: frozenset[str]
    """The tables with row level security, without partitions."""
    policies: frozenset[Policy]
    added: Sequence[str]
    """Rules, and row level security that binds the owner: this code has none."""

    def fingerprint(self) -> str:
        """Name what is installed; months that come and go make no difference."""
        parts = [
            *(
                (signature, function.body, sorted(function.settings), sorted(function.traits))
                for _, signature, function in self.functions
            ),
            *self.views.items(),
            *((t.definition, t.enabled) for t in self.triggers if not t.part),
            *((o.kind, o.name, o.owner) for o in self.owners if not _comes_and_goes(o.name)),
            *((g.grant, g.passed_on) for g in self.grants if not g.part),
            *sorted(self.secured),
            *sorted(map(repr, self.policies)),
            *self.added,
        ]
        text = "\n".join(map(repr, parts))
        return "installed sha256:" + sha256(text.encode()).hexdigest()


def _comes_and_goes(name: str) -> bool:
    """Whether a relation is a month, or a table of projections or of a rebuild."""
    return name.startswith(("event_2", "projection.", "rebuild_"))


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


async def settings_of_roles(source: Any) -> list[tuple[str, str]]:
    """Return what roles, or every role, are set to in this database: the role and `name=value`."""
    return [(row["role"], row["setting"]) for row in await fetch(source, _SETTINGS)]


async def open_schemas(source: Any) -> list[str]:
    """Return the schemas in which everybody may create objects."""
    return [row["name"] for row in await fetch(source, _OPEN)]


def _function(row: Mapping[str, Any]) -> Function:
    settings = frozenset(map(setting, row["settings"]))
    return Function(row["body"], settings, frozenset(row["traits"]))


def setting(text: str) -> str:
    """Return a setting in one form, without blanks and quotes."""
    return re.sub(r"[\s'\"]", "", text)
