"""The recorded repair of lists by tag: they are made to match the states of the runs again.

The states are the fold of the events: where both are wrong, the states are repaired first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from runfold.ledger import Ledger
from runfold.ledger.postgres.locks import with_lock_retries
from runfold.ledger.reading.tag_checks import WrongTag
from runfold.ledger.validation import check_actor, check_text
from runfold.projections.state.repair_notes import note_repairs

TAGS_REPAIRED: Final = "run_tag.repaired"
"""The name of the note that a repair leaves on the run."""
_LOCK: Final = """
SELECT run.run_id FROM ledger.run_state AS run
WHERE run.project_id = $1 AND run.run_id = ANY ($2::uuid[]) ORDER BY run.run_id FOR UPDATE
"""
_HERE: Final = """
SELECT event.run_id FROM ledger.event AS event
WHERE event.project_id = $1 AND event.run_id = ANY ($2::uuid[]) AND event.version = 1
"""
_REMOVE: Final = """
DELETE FROM ledger.run_tag AS entry USING unnest($2::uuid[], $3::text[], $4::text[])
  AS wrong (run_id, kind, tag)
WHERE entry.project_id = $1 AND entry.tag = wrong.tag AND entry.kind = wrong.kind
  AND entry.run_id = wrong.run_id
  AND NOT EXISTS (SELECT FROM ledger.run_state AS run WHERE run.project_id = $1
    AND run.run_id = wrong.run_id AND run.kind = wrong.kind AND wrong.tag = ANY (run.tags))
RETURNING entry.run_id, entry.tag
"""
_ADD: Final = """
INSERT INTO ledger.run_tag (project_id, tag, kind, run_id)
SELECT run.project_id, wrong.tag, run.kind, run.run_id
FROM unnest($2::uuid[], $3::text[], $4::text[]) AS wrong (run_id, kind, tag)
JOIN ledger.run_state AS run ON run.project_id = $1 AND run.run_id = wrong.run_id
WHERE run.kind = wrong.kind AND wrong.tag = ANY (run.tags)
ON CONFLICT DO NOTHING
RETURNING run_id, tag
"""


async def repair_tags(ledger: Ledger, wrong: Sequence[WrongTag], *, actor: str, reason: str) -> int:
    """Put the lists of these tags right, in one transaction; return how many entries were wrong.

    Each run whose events are in the database gets a note `run_tag.repaired`. It takes the owner of
    the schema; raises AccessDenied, InvalidValue or LockTimeout.
    """
    check_actor(actor)
    check_text("reason", reason, limit=1_000)
    runs = sorted({entry.run_id for entry in wrong})
    keys = (
        [entry.run_id for entry in wrong],
        [entry.kind for entry in wrong],
        [entry.tag for entry in wrong],
    )

    async def work(connection: Any) -> int:
        await connection.execute(_LOCK, ledger.project_id, runs)
        removed = await connection.fetch(_REMOVE, ledger.project_id, *keys)
        added = await connection.fetch(_ADD, ledger.project_id, *keys)
        here = await connection.fetch(_HERE, ledger.project_id, runs)
        notes: dict[UUID, list[str]] = {row["run_id"]: [] for row in here}
        for what, rows in (("removed from", removed), ("added to", added)):
            for row in rows:
                notes.get(row["run_id"], []).append(f"{what} the list of {row['tag']!r}")
        texts = {
            run_id: f"{reason}: {'; '.join(those)}" for run_id, those in notes.items() if those
        }
        await note_repairs(connection, ledger.project, TAGS_REPAIRED, texts, actor=actor)
        return len(removed) + len(added)

    return await with_lock_retries(ledger.pool, work, f"{len(runs)} runs", ledger.project_id)
