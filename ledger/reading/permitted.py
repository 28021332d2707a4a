"""Whether a login sees what it asks about: a read without the right finds nothing, or a part."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sized
from contextlib import asynccontextmanager
from typing import Any, Final

from runfold.ledger.errors import AccessDenied, DatabaseUnavailable
from runfold.ledger.postgres.connections import Connection, Pool, fetch

RUN_RIGHTS: Final = ("read", "work", "audit")
"""The rights of which one shows runs: with `work`, those that the login holds."""
KIND_RIGHTS: Final = ("read", "work", "submit", "audit")

# Null: the login has one of the rights in all projects. A row of a grant that was changed, and
# changed back, has been written by another transaction.
_MAY: Final = """
SELECT ledger.credential() AS credential,
  coalesce($1 = ANY (ledger.projects_with(VARIADIC $2::text[])), true) AS may,
  ARRAY(SELECT granted.xmin::text FROM ledger.access_grant AS granted
    WHERE granted.credential = ledger.credential() ORDER BY granted.project_id) AS grants
"""


async def check_may(source: Pool | Connection, project_id: str, *rights: str) -> None:
    """Raise AccessDenied unless the login has one of the rights in the project (`*`: in all)."""
    await _rights(source, project_id, *rights)


@asynccontextmanager
async def permitted(connection: Connection, project_id: str, *rights: str) -> AsyncIterator[None]:
    """Have one of the rights as `check_may` does, from the block's beginning to its end.

    Each statement sees what is granted at its moment: what is read after a right was taken away and
    written after it was given back would leave out what was hidden. Around all statements of a
    transaction, and without a lock, which would hold up an order. Raises AccessDenied, or
    DatabaseUnavailable where a grant was changed.
    """
    before = await _rights(connection, project_id, *rights)
    yield
    now = await _rights(connection, project_id, *rights)
    if now["grants"] != before["grants"]:
        raise DatabaseUnavailable(
            None,
            f"the grants of {now['credential']} were changed meanwhile; nothing was written: "
            "run it again",
        )


async def _rights(source: Pool | Connection, project_id: str, *rights: str) -> Mapping[str, Any]:
    [row] = await fetch(source, _MAY, project_id, list(rights))
    if not row["may"]:
        place = "all projects" if project_id == "*" else f"project {project_id}"
        raise AccessDenied.lacking(
            f"{row['credential']} lacks the right {' or '.join(rights)} in {place}"
        )
    return row


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
