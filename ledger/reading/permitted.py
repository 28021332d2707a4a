"""Whether a login sees what it asks about: a read without the right finds nothing, or a part."""

from __future__ import annotations

from collections.abc import Sized
from typing import Final

from runfold.ledger.errors import AccessDenied
from runfold.ledger.postgres.connections import Connection, Pool, fetch

RUN_RIGHTS: Final = ("read", "work", "audit")
"""The rights of which one shows runs: with `work`, those that the login holds."""
KIND_RIGHTS: Final = ("read", "work", "submit", "audit")

# Null: the login has one of the rights in all projects.
_MAY: Final = """
SELECT ledger.credential() AS credential,
  coalesce($1 = ANY (ledger.projects_with(VARIADIC $2::text[])), true) AS may
"""


async def check_may(source: Pool | Connection, project_id: str, *rights: str) -> None:
    """Raise AccessDenied unless the login has one of the rights in the project (`*`: in all)."""
    [row] = await fetch(source, _MAY, project_id, list(rights))
    if not row["may"]:
        place = "all projects" if project_id == "*" else f"project {project_id}"
        raise AccessDenied.lacking(
            f"{row['credential']} lacks the right {' or '.join(rights)} in {place}"
        )


async def check_found(found: Sized, pool: Pool, project_id: str, *rights: str) -> None:
    """Raise AccessDenied where nothing was found by a login that has none of the rights.

    It would be taken for an answer. What is found costs no statement: row level security has let
    the login see it. See docs/decisions/0091.
    """
    if not found:
        await check_may(pool, project_id, *rights)


async def check_may_read(pool: Pool, project_id: str) -> None:
    """Raise AccessDenied unless the login may read the project's runs and their contents.

    A check compares them: where a login sees a part, the rest would look damaged.
    """
    await check_may(pool, project_id, "read", "audit")
