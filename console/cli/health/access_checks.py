"""Checks of access: what the login may do, who gets past the grants, unknown settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from runfold.console.cli.health.check import Check, Level
from runfold.console.cli.kit.unknown_settings import unknown_settings
from runfold.console.shared.plain import number_of
from runfold.ledger.postgres.access_holes import access_holes
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.postgres.login_limits import unlimited
from runfold.ledger.postgres.opening import Database
from runfold.ledger.postgres.server_roles import (
    ROLES,
    UNGRANTABLE,
    open_database,
    who_closes,
    who_grants,
)


def settings() -> Check:
    """Whether every variable that looks like a setting is one."""
    unknown = unknown_settings(os.environ)
    if not unknown:
        return Check("settings", Level.OK, "every RUNFOLD_ variable is a setting")
    return Check("settings", Level.FAILED, "; ".join(unknown))


async def roles(database: Database) -> Check:
    """Whether the ledger's owner may grant the roles; an administrator may in any case."""
    rows = await fetch(database.pool, UNGRANTABLE, ROLES)
    if not rows:
        return Check("roles", Level.OK, "the ledger's owner may grant them")
    return Check("roles", Level.WARNING, who_grants(tuple(row["role"] for row in rows)))


_GRANTS: Final = """
SELECT count(*) AS grants FROM ledger.access_grant WHERE cardinality(rights) > 0
"""


async def access(opened: Database) -> list[Check]:
    """Whether anybody gets past the grants: a check for each hole, or one that finds none."""
    holes = [
        Check(
            "access", Level.FAILED if hole.is_open else Level.WARNING, f"{hole.hole}: {hole.remedy}"
        )
        for hole in await access_holes(opened.pool)
        if hole.is_open or not opened.embedded
    ]
    database = None if opened.embedded else await open_database(opened.pool)
    if database is not None:
        holes.append(Check("access", Level.WARNING, who_closes(database)))
    (row,) = await fetch(opened.pool, _GRANTS)
    return holes or [
        Check("access", Level.OK, f"{number_of(row['grants'], 'grant')} visible to this login")
    ]


async def limits(opened: Database) -> list[Check]:
    """Whether each login with rights has limits of time and connections; a check for each."""
    lacking = [] if opened.embedded else await unlimited(opened.pool)
    detail = "no login with rights that this login sees lacks a limit"
    return [Check("limits", Level.WARNING, line) for line in lacking] or [
        Check("limits", Level.OK, detail)
    ]


_ROLE: Final = """
SELECT current_user::text AS login, role.rolsuper AS superuser,
  has_table_privilege('ledger.event', 'SELECT') AS reads,
  has_table_privilege('ledger.event', 'INSERT') AS inserts,
  has_function_privilege(function.oid, 'EXECUTE') AS works,
  EXISTS (
    SELECT FROM pg_roles AS projector
    WHERE projector.rolname = 'runfold_projector'
      AND pg_has_role(current_user, projector.oid, 'USAGE')) AS projects
FROM pg_roles AS role, pg_proc AS function
WHERE role.rolname = current_user
  AND function.pronamespace = to_regnamespace('ledger') AND function.proname = 'claim'
"""


async def privileges(database: Database) -> Check:
    """Whether the login can read the ledger, and no more than it should."""
    (row,) = await fetch(database.pool, _ROLE)
    if database.embedded:
        detail = f"login {row['login']} of the built-in server"
        return Check("privileges", Level.OK, detail)
    return _privileges(row)


def _privileges(row: Mapping[str, Any]) -> Check:
    login = f"login {row['login']}"
    if not row["reads"]:
        return Check(
            "privileges",
            Level.FAILED,
            f"{login} may not read: grant it runfold_worker or runfold_reader",
        )
    if row["superuser"]:
        return Check(
            "privileges",
            Level.WARNING,
            f"{login} is a superuser: give workers their own login with runfold_worker",
        )
    if row["inserts"]:
        return Check(
            "privileges",
            Level.WARNING,
            f"{login} may write tables directly: give workers a login with runfold_worker",
        )
    may = ["read"]
    may += ["work"] if row["works"] else []
    may += ["keep projections"] if row["projects"] else []
    only = " only" if len(may) == 1 else ""
    return Check("privileges", Level.OK, f"{login} may {' and '.join(may)}{only}")
