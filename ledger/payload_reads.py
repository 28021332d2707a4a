"""Reads of content: which credential read the payloads of which run, on record.

See docs/decisions/0068.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from runfold.ledger.operations.project import Project
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.reading.permitted import check_found
from runfold.ledger.validation import check_instant, check_int

_READS: Final = """
SELECT read_at, run_id, credential, route FROM ledger.payload_read
WHERE project_id = $1 AND ($2::uuid IS NULL OR run_id = $2)
ORDER BY read_at DESC, run_id DESC, credential DESC, route DESC LIMIT $3
"""
_NOTE_READS: Final = "SELECT ledger.note_reads($1, $2, $3)"
_DROP_READS: Final = "SELECT ledger.drop_reads($1, $2, $3, $4) AS dropped"


@dataclass(frozen=True, slots=True)
class PayloadRead:
    """In a minute a credential read the content of a run, by a route of the API or the pages."""

    read_at: datetime
    run_id: UUID
    credential: str
    route: str


async def note_reads(project: Project, run_ids: Iterable[UUID], route: str) -> None:
    """Record that this session's credential reads the content of runs; each once a minute."""
    await fetch(project.pool, _NOTE_READS, project.project_id, list(run_ids), route)


async def reads(
    project: Project, *, run_id: UUID | None = None, limit: int = 100
) -> list[PayloadRead]:
    """Return who read the content of which run, the newest first. Needs the right audit.

    What the API and the pages showed is recorded; what a login reads from the tables is not.
    """
    check_int("limit", limit, least=1, most=10_000)
    rows = await fetch(project.pool, _READS, project.project_id, run_id, limit)
    await check_found(rows, project.pool, project.project_id, "audit")
    return [PayloadRead(**row) for row in rows]


async def drop_reads(
    project: Project, before: datetime, *, actor: str | None = None, reason: str | None = None
) -> int:
    """Delete the project's records of reads from before a time; return how many.

    On record in the control history, in transactions of 10,000 records. For the owner of the
    schema. Raises InvalidValue for a time that is less than 184 days ago.
    """
    check_instant("before", before)
    why = project.order_reason(reason)
    by = project.actor_or_default(actor)
    given, dropped = (project.project_id, by, before, why), 0
    while count := (await fetch(project.pool, _DROP_READS, *given))[0]["dropped"]:
        dropped += count
    return dropped
