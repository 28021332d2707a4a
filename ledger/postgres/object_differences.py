"""What is installed in schema `ledger` against what this code installs, in words."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace
from typing import Any, Final

from runfold.ledger.postgres import code_objects
from runfold.ledger.postgres.connections import Pool
from runfold.ledger.postgres.installed_objects import installed
from runfold.ledger.postgres.objects import (
    Function,
    Grant,
    Installed,
    Policy,
    Trigger,
    trigger_form,
)
from runfold.ledger.postgres.unsafe_settings import unsafe_settings

_PARTITION_TRIGGERS: Final = frozenset({"refuse_truncate", "refuse_insert", "refuse_change"})


async def object_differences(pool: Pool) -> list[str]:
    """Return what of the schema is not as this code installs it; empty if all is.

    Compares functions, views, triggers, rules, policies, owners, privileges and the settings of
    roles. Nothing is changed.
    """
    async with pool.acquire() as connection:
        return await differences_on(connection)


async def differences_on(connection: Any) -> list[str]:
    """Return the same by one connection, as far as its transaction sees."""
    now = await installed(connection)
    return [
        *_functions(now),
        *await _views(connection, now),
        *_triggers(now),
        *await _policies(connection, now),
        *(f"{name} is not this program's" for name in now.added),
        *(
            f"{owned.kind} {owned.name} belongs to {owned.owner}, not to {owned.expected}"
            for owned in now.owners
            if owned.owner != owned.expected
        ),
        *_grants(now),
        *await unsafe_settings(connection),
    ]


def _functions(now: Installed) -> Sequence[str]:
    expected = code_objects.functions()
    by_name: dict[str, list[Function]] = {}
    for name, _, function in now.functions:
        by_name.setdefault(name, []).append(function)
    changed = [
        f"function {name} is changed"
        for name, function in sorted(expected.items())
        if name in by_name and by_name[name] != [function]
    ]
    missing = sorted(code_objects.function_names() - set(by_name))
    foreign = sorted(set(by_name) - code_objects.function_names())
    return [
        *changed,
        *(f"function {name} is missing" for name in missing),
        *(f"function {name} is not this program's" for name in foreign),
    ]


async def _views(connection: Any, now: Installed) -> Sequence[str]:
    """Compare views with the ones that this code makes, as temporary ones that are rolled back."""
    expected = code_objects.views()
    problems = [f"view {name} is not this program's" for name in now.views if name not in expected]
    transaction = connection.transaction()
    await transaction.start()
    try:
        for name, rest in expected.items():
            if now.views.get(name) != await _as_made(connection, rest):
                problems.append(f"view {name} is changed")
    finally:
        await transaction.rollback()
    return problems


_TEMPORARY: Final = "runfold_compared_view"
_MADE: Final = f"""
SELECT pg_get_viewdef(view.oid) AS definition, array_to_string(view.reloptions, ' ') AS options
FROM pg_class AS view WHERE view.oid = 'pg_temp.{_TEMPORARY}'::regclass
"""


async def _as_made(connection: Any, rest: str) -> tuple[str, str | None]:
    await connection.execute(f"CREATE TEMP VIEW {_TEMPORARY} {rest}")
    made = await connection.fetchrow(_MADE)
    await connection.execute(f"DROP VIEW pg_temp.{_TEMPORARY}")
    return made["definition"], made["options"]


async def _policies(connection: Any, now: Installed) -> Sequence[str]:
    """Compare policies with the ones that this code makes, on a temporary table as with views."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        rows = await connection.fetch(code_objects.functions()["policy_rules"].body)
        policies = [Policy(**row) for row in rows]
        written = {str(policy.rule) for policy in policies}
        rules = await _rules_as_made(connection, written)
        expected = {
            replace(policy, role=policy.role.lower(), rule=rules[str(policy.rule)])
            for policy in policies
        }
    finally:
        await transaction.rollback()
    now_policies = {replace(policy, role=policy.role.lower()) for policy in now.policies}
    return [
        *(
            f"policy {p.policy} of {p.relation} is missing or changed"
            for p in expected - now_policies
        ),
        *(
            f"policy {p.policy} of {p.relation} is not this program's"
            for p in now_policies - expected
        ),
        *(
            f"row security of {name} is off"
            for name in sorted({p.relation for p in expected} - now.secured)
        ),
        *(
            f"row security of {name} is not this program's"
            for name in sorted(now.secured - {p.relation for p in expected})
        ),
    ]


_RULE: Final = f"""
SELECT pg_get_expr(policy.polqual, policy.polrelid) AS rule FROM pg_policy AS policy
WHERE policy.polrelid = 'pg_temp.{_TEMPORARY}'::regclass ORDER BY policy.polname
"""


async def _rules_as_made(connection: Any, written: set[str]) -> dict[str, str]:
    """Return each rule as the server writes it."""
    rules = sorted(written)
    made = [
        f"CREATE POLICY made_{number:03} ON {_TEMPORARY} USING ({rule})"
        for number, rule in enumerate(rules)
    ]
    table = f"CREATE TEMP TABLE {_TEMPORARY} (project_id text, credential varchar(200))"
    await connection.execute(";".join([table, *made]))
    return dict(zip(rules, [row["rule"] for row in await connection.fetch(_RULE)], strict=True))


def _triggers(now: Installed) -> Sequence[str]:
    expected = code_objects.triggers()
    firing = {
        (trigger.table, trigger.name): trigger_form(trigger.definition)
        for trigger in now.triggers
        if trigger.enabled == "A" and trigger.ours
    }
    return [
        *(
            f"trigger {name} of {table} does not always fire"
            for table, name in sorted(set(expected) - set(firing))
        ),
        *(
            f"trigger {name} of {table} is changed"
            for (table, name), form in sorted(expected.items())
            if firing.get((table, name), form) != form
        ),
        *(
            f"trigger {trigger.name} of {trigger.table} is not this program's"
            for trigger in now.triggers
            if not _is_expected(trigger, expected)
        ),
    ]


def _is_expected(trigger: Trigger, expected: Container[tuple[str, str]]) -> bool:
    if not trigger.ours:
        return False
    if trigger.part:
        return trigger.name in _PARTITION_TRIGGERS
    return (trigger.table, trigger.name) in expected


def _grants(now: Installed) -> Sequence[str]:
    expected = code_objects.grants()
    more = [
        f"{grant.role} has {grant.privilege} on {grant.object}: {_revocation(grant)}"
        for grant in {held.grant for held in now.grants} - expected
    ]
    less = [
        f"{grant.role} lacks {grant.privilege} on {grant.object}"
        for grant in expected - {held.grant for held in now.grants}
    ]
    passed_on = [
        f"{held.grant.role} may pass on {held.grant.privilege} on {held.grant.object}"
        for held in now.grants
        if held.passed_on
    ]
    return [*sorted(more), *sorted(less), *sorted(passed_on)]


def _revocation(grant: Grant) -> str:
    """Return the statement that revokes a privilege, which no upgrade does."""
    role = grant.role if grant.role == "PUBLIC" else f'"{grant.role}"'
    name = grant.object
    if name.startswith("schema "):
        return f"REVOKE {grant.privilege} ON {name.replace('schema', 'SCHEMA', 1)} FROM {role}"
    if grant.privilege == "EXECUTE":
        return f"REVOKE EXECUTE ON FUNCTION ledger.{name} FROM {role}"
    relation, _, column = name.partition(".")
    columns = f" ({column})" if column else ""
    return f"REVOKE {grant.privilege}{columns} ON ledger.{relation} FROM {role}"
