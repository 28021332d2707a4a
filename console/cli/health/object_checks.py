"""The check of what is installed in schema `ledger` against what this code installs."""

from __future__ import annotations

from typing import Final

from runfold.console.cli.health.check import Check, Level
from runfold.ledger.postgres.object_differences import object_differences
from runfold.ledger.postgres.opening import Database

_SHOWN: Final = 50
"""Differences shown: more than a person changes by hand, fewer than another schema makes."""
_REMEDY: Final = "find out who changed it; `runfold db upgrade` installs this program's"


async def objects(database: Database) -> Check:
    """Whether functions, views, triggers, owners and privileges are this code's."""
    problems = await object_differences(database.pool)
    if not problems:
        return Check(
            "objects", Level.OK, "functions, views, triggers, owners, privileges as installed"
        )
    more = len(problems) - _SHOWN
    shown = "; ".join(problems[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
    return Check("objects", Level.FAILED, f"{shown}: {_REMEDY}")
