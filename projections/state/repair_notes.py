"""Notes of repairs: each run that was repaired says so in its history."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from runfold.ledger.errors import LedgerError
from runfold.ledger.events import NoteAdded
from runfold.ledger.operations.append import APPEND, append_row
from runfold.ledger.operations.columns import columns
from runfold.ledger.operations.project import Project
from runfold.ledger.payload import PayloadRules

_NOTE_BYTES: Final = 16_384


async def note_repairs(
    connection: Any, project: Project, name: str, texts: Mapping[UUID, str], *, actor: str
) -> None:
    """Add a note under a name to each run, in the open transaction; a long text is cut.

    Raises LedgerError, so that nothing is repaired, if a run cannot take its note.
    """
    if not texts:
        return
    rules = PayloadRules(_NOTE_BYTES * 2, project.rules.redaction)
    rows = [
        append_row(run_id, NoteAdded(name=name, text=_cut(text)), rules)
        for run_id, text in texts.items()
    ]
    noted = await connection.fetch(APPEND, project.project_id, actor, *columns(rows))
    if len(noted) != len(rows):
        raise LedgerError(
            f"only {len(noted)} of {len(rows)} repairs could be recorded; nothing was repaired"
        )


def _cut(text: str) -> str:
    return text if len(text) <= _NOTE_BYTES else text[:_NOTE_BYTES] + " ..."
