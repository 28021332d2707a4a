"""Checks of what is installed in schema `ledger` against what this code installs.

A comment on the schema says which functions were installed last; these checks look at the
functions, views, triggers, owners and privileges themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from runfold.console.cli.health import code_objects
from runfold.console.cli.health.check import Check, Level
from runfold.console.cli.health.code_objects import Function, Grant
from runfold.ledger.postgres.connections import Pool, fetch
from runfold.ledger.postgres.opening import Database

_SHOWN: Final = 5
_REMEDY: Final = "find out who changed it; `runfold db upgrade` installs this program's"

_FUNCTIONS: Final = """
SELECT p.proname AS name, p.prosrc AS body, p.prosecdef AS definer,
  coalesce(p.proconfig, '{}') AS settings
FROM pg_proc AS p WHERE p.pronamespace = 'ledger'::regnamespace
"""
_TRIGGERS: Final = """
SELECT c.relname AS table, t.tgname AS name, t.tgenabled::text AS enabled, c.relispartition AS part,
  f.proname AS function, f.pronamespace = 'ledger'::regnamespace AS ours
FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid JOIN pg_proc AS f ON f.oid = t.tgfoid
WHERE c.relnamespace = 'ledger'::regnamespace AND NOT t.tgisinternal
"""
_OWNERS: Final = """
SELECT o.kind, o.name, pg_get_userbyid(o.owner) AS owner, pg_get_userbyid(n.nspowner) AS expected
FROM pg_namespace AS n CROSS JOIN LATERAL (
  SELECT 'relation' AS kind, c.relname AS name, c.relowner AS owner
  FROM pg_class AS c WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
  UNION ALL
  SELECT 'function', p.proname, p.proowner FROM pg_proc AS p WHERE p.pronamespace = n.oid
) AS o
WHERE n.nspname = 'ledger' AND o.owner <> n.nspowner ORDER BY o.kind, o.name
"""
_GRANTS: Final = """
SELECT o.name, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END AS role,
  a.privilege_type AS privilege
FROM (
  SELECT c.relname AS name, c.relacl AS acl, c.relowner AS owner FROM pg_class AS c
  WHERE c.relnamespace = 'ledger'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'S')
  UNION ALL
  SELECT p.proname, coalesce(p.proacl, acldefault('f', p.proowner)), p.proowner
  FROM pg_proc AS p WHERE p.pronamespace = 'ledger'::regnamespace
) AS o CROSS JOIN LATERAL aclexplode(o.acl) AS a
WHERE a.grantee <> o.owner
"""
_WRITES: Final = frozenset({"INSERT", "UPDATE", "DELETE", "TRUNCATE", "TRIGGER", "EXECUTE"})
_PARTITION_TRIGGERS: Final = frozenset({"refuse_truncate", "refuse_insert", "refuse_change"})


async def objects(database: Database) -> Check:
    """Whether functions, views, triggers, owners and privileges are this code's."""
    problems = [
        *await _functions(database.pool),
        *await _views(database.pool),
        *await _triggers(database.pool),
        *await _owners(database.pool),
        *await _grants(database.pool),
    ]
    if not problems:
        return Check(
            "objects", Level.OK, "functions, views, triggers, owners, privileges as installed"
        )
    more = len(problems) - _SHOWN
    shown = "; ".join(problems[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
    return Check("objects", Level.FAILED, f"{shown}: {_REMEDY}")


async def _functions(pool: Pool) -> Sequence[str]:
    expected = code_objects.functions()
    installed: dict[str, list[Function]] = {}
    for row in await fetch(pool, _FUNCTIONS):
        settings = frozenset(map(code_objects.setting, row["settings"]))
        installed.setdefault(row["name"], []).append(
            Function(row["body"], settings, row["definer"])
        )
    changed = [
        f"function {name} is changed"
        for name, function in sorted(expected.items())
        if name in installed and installed[name] != [function]
    ]
    missing = sorted(code_objects.function_names() - set(installed))
    foreign = sorted(set(installed) - code_objects.function_names())
    return [
        *changed,
        *(f"function {name} is missing" for name in missing),
        *(f"function {name} is not this program's" for name in foreign),
    ]


async def _views(pool: Pool) -> Sequence[str]:
    """Compare views with the ones that this code makes, as temporary ones that are rolled back."""
    problems = []
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        try:
            for name, rest in code_objects.views().items():
                await connection.execute(f"CREATE TEMP VIEW {_TEMPORARY} {rest}")
                same = await connection.fetchval(_SAME_VIEW, f"ledger.{name}")
                await connection.execute(f"DROP VIEW pg_temp.{_TEMPORARY}")
                if not same:
                    problems.append(f"view {name} is changed")
        finally:
            await transaction.rollback()
    return problems


_TEMPORARY: Final = "runfold_compared_view"
_SAME_VIEW: Final = f"""
SELECT pg_get_viewdef('pg_temp.{_TEMPORARY}'::regclass) = pg_get_viewdef(to_regclass($1))
  AND (SELECT reloptions FROM pg_class WHERE oid = 'pg_temp.{_TEMPORARY}'::regclass)
    IS NOT DISTINCT FROM (SELECT reloptions FROM pg_class WHERE oid = to_regclass($1))
"""


async def _triggers(pool: Pool) -> Sequence[str]:
    expected = code_objects.triggers()
    rows = await fetch(pool, _TRIGGERS)
    firing = {(row["table"], row["name"]) for row in rows if row["enabled"] == "A" and row["ours"]}
    missing = [
        f"trigger {name} of {table} does not always fire"
        for table, name in sorted(expected - firing)
    ]
    foreign = [
        f"trigger {row['name']} of {row['table']} is not this program's"
        for row in rows
        if not _is_expected(row, expected)
    ]
    return [*missing, *sorted(foreign)]


def _is_expected(row: Any, expected: frozenset[tuple[str, str]]) -> bool:
    if not row["ours"]:
        return False
    if row["part"]:
        return row["name"] in _PARTITION_TRIGGERS
    return (row["table"], row["name"]) in expected


async def _owners(pool: Pool) -> Sequence[str]:
    return [
        f"{row['kind']} {row['name']} belongs to {row['owner']}, not to {row['expected']}"
        for row in await fetch(pool, _OWNERS)
    ]


async def _grants(pool: Pool) -> Sequence[str]:
    expected = code_objects.grants()
    installed = {
        Grant(row["name"], row["role"], row["privilege"]) for row in await fetch(pool, _GRANTS)
    }
    more = [
        f"{grant.role} has {grant.privilege} on {grant.object}"
        for grant in installed - expected
        if grant.privilege in _WRITES
    ]
    less = [
        f"{grant.role} lacks {grant.privilege} on {grant.object}" for grant in expected - installed
    ]
    return [*sorted(more), *sorted(less)]
