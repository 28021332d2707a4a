"""Idempotency keys: the first outcome of a command that is repeated.

The statement is `ledger/sql/operations/commands.sql`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Final, NamedTuple, TypeVar
from uuid import UUID

from runfold.ledger.errors import AccessDenied, DatabaseRefused, DuplicateKey
from runfold.ledger.operations.columns import columns
from runfold.ledger.postgres.connections import Connection, Pool, fetch
from runfold.ledger.reading.past import state_at
from runfold.ledger.run import Receipt, Run

COMMANDS: Final = (
    "SELECT * FROM ledger.commands"
    "($1, $2, $3, $5, $6, $7, $8, $9::text[]::numeric[], $10, $11, $12, $13, $4)"
)
_NOW: Final = "SELECT * FROM ledger.read_run($1, $2)"
UNIQUE_VIOLATION: Final = "23505"
T = TypeVar("T")


class CommandRow(NamedTuple):
    """The columns of COMMANDS after the project: a key, and what its content is made of."""

    run_id: UUID
    what: str
    """The state of a transition, the type of an event."""
    key: str
    park: bool | None = False
    name: str | None = None
    error_code: str | None = None
    body: str | None = None
    cost: str | None = None
    steps: int | None = None
    output_sha256: bytes | None = None
    wait: timedelta | None = None
    wait_outcome: str | None = None


async def first_outcomes(
    source: Pool | Connection, project_id: str, rows: Sequence[CommandRow]
) -> dict[str, Receipt | DuplicateKey]:
    """Return the first outcome of each key that was used, or the error if its content differs."""
    if not rows:
        return {}
    outcomes = await fetch(source, COMMANDS, project_id, *columns(rows))
    return {
        row["key"]: Receipt(row["run_id"], row["version"], row["hash"])
        if row["same"]
        else DuplicateKey(row["key"], row["run_id"], row["version"])
        for row in outcomes
    }


async def run_after(pool: Pool, project_id: str, first: Receipt) -> Run:
    """Return the run as it was after the first outcome of a command.

    A credential that may write and not read is shown the run as it is now, as by the write itself.
    """
    try:
        return await state_at(pool, project_id, first.run_id, first.version)
    except AccessDenied:
        [row] = await fetch(pool, _NOW, project_id, first.run_id)
        return Run.from_row(row)


async def unless_raced(call: Callable[[], Awaitable[T]], *keys: str | None) -> T:
    """Make a keyed call, a second time when a concurrent command with the same key won the race.

    The loser wrote nothing. The second time the key is taken, so the winner's outcome is looked up
    and nothing is repeated.
    """
    try:
        return await call()
    except DatabaseRefused as error:
        if error.sqlstate != UNIQUE_VIOLATION or not any(keys):
            raise
        return await call()
