"""Kinds of runs: paused, resumed and limited, each time by an event. See docs/decisions/0023."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from runfold.ledger.errors import UnknownKind
from runfold.ledger.operations.project import Project
from runfold.ledger.postgres.connections import Pool, fetch
from runfold.ledger.reading.permitted import KIND_RIGHTS, check_found
from runfold.ledger.reading.runs import KINDS
from runfold.ledger.validation import check_int, check_text, check_trimmed

PAUSED: Final = "kind.paused"
RESUMED: Final = "kind.resumed"
LIMITED: Final = "kind.limited"
_CHANGE: Final = "SELECT * FROM ledger.change_kind($1, $2, $3, $4, $5, $6, $7)"
_KINDS: Final = """
SELECT coalesce(known.kind, setting.kind) AS kind, coalesce(setting.paused, false) AS paused,
  setting.max_running, setting.updated_at, coalesce(holding.held, 0) AS held
FROM (SELECT DISTINCT kind FROM ledger.kind WHERE project_id = $1) AS known
FULL JOIN (SELECT * FROM ledger.kind_state WHERE project_id = $1) AS setting
  ON setting.kind = known.kind
LEFT JOIN (
  SELECT kind, count(*)::int AS held FROM ledger.run_state
  WHERE project_id = $1 AND token IS NOT NULL GROUP BY kind
) AS holding ON holding.kind = coalesce(known.kind, setting.kind)
ORDER BY 1
"""
_HISTORY: Final = """
SELECT kind, number, recorded_at, actor, type, max_running, reason FROM ledger.kind_event
WHERE project_id = $1 AND kind = $2 ORDER BY number
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind's current settings; `max_running` None means no limit.

    `updated_at` is None if they were never changed.
    """

    kind: str
    paused: bool
    max_running: int | None
    updated_at: datetime | None
    held: int | None = None
    """Runs of it that are held by workers; None if they were not counted."""


@dataclass(frozen=True, slots=True)
class KindEvent:
    """One change of a kind: its actor, time and reason."""

    kind: str
    number: int
    recorded_at: datetime
    actor: str
    type: str
    max_running: int | None
    reason: str | None


async def change(
    project: Project,
    kind: str,
    type_: str,
    *,
    actor: str | None,
    max_running: int | None = None,
    reason: str | None = None,
    ahead: bool = False,
) -> Kind:
    """Append one event to a kind and return the kind after it.

    Raises InvalidValue, or UnknownKind unless it is said to be `ahead` of its first run.
    """
    check_trimmed("kind", kind)
    who = project.actor_or_default(actor)
    if max_running is not None:
        check_int("max_running", max_running, least=1)
    values = (kind, type_, max_running, project.order_reason(reason), ahead)
    async with known_kind(project.pool, project.project_id):
        [row] = await fetch(project.pool, _CHANGE, project.project_id, who, *values)
    if type_ != PAUSED:  # there may be work now
        project.waker.wake()
    return Kind(row["kind"], row["paused"], row["max_running"], row["updated_at"])


@asynccontextmanager
async def known_kind(pool: Pool, project_id: str) -> AsyncIterator[None]:
    """Have a refusal of an unknown kind say which kinds the caller may see, and the remedy."""
    try:
        yield
    except UnknownKind as error:
        rows = await fetch(pool, KINDS, project_id)
        seen = [row["kind"] for row in rows]
        raise UnknownKind(error.kind, seen, "; `ahead` allows a kind that has no run yet") from None


async def kinds(pool: Pool, project_id: str) -> list[Kind]:
    """Return every kind, with its held runs; see `Ledger.kinds`."""
    rows = await fetch(pool, _KINDS, project_id)
    await check_found(rows, pool, project_id, *KIND_RIGHTS)
    return [Kind(**row) for row in rows]


async def history(pool: Pool, project_id: str, kind: str) -> list[KindEvent]:
    """Return the changes of a kind; see `Ledger.kind_history`."""
    rows = await fetch(pool, _HISTORY, project_id, check_text("kind", kind))
    await check_found(rows, pool, project_id, "read", "audit")
    return [KindEvent(**row) for row in rows]
