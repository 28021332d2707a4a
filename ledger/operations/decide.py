"""What a decision binds: the digest of exactly what was shown, and what is noted of one that was refused (pure)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Final

from runfold.ledger.events import ApprovalRequested, Event, NoteAdded
from runfold.ledger.lifecycle import State

MAX_NOTES: Final = 100
_REFUSED: Final = "decision refused,"


def shown_sha256(prompt: str, show: Any = None) -> str:
    """Give the hex SHA-256 of an approval's prompt and content: of their JSON with sorted keys and no spaces."""
    shown = {"prompt": prompt, "show": show}
    return sha256(
        json.dumps(shown, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()
    ).hexdigest()


def refused_decision(
    history: Sequence[Event], to_state: State, error: Exception, reason: str | None
) -> NoteAdded | None:
    """Write the note of a decision that was late, repeated or of the wrong person; None where nothing was ever asked.

    At most one hundred to a run.
    """
    asked = any(isinstance(event, ApprovalRequested) for event in history)
    noted = sum(
        isinstance(event, NoteAdded) and (event.text or "").startswith(_REFUSED)
        for event in history
    )
    if not asked or noted >= MAX_NOTES:
        return None
    word = "yes" if to_state == State.RUNNING else "no"
    return NoteAdded(
        text=f"{_REFUSED} {word}: {error}" + (f" (the reason given: {reason})" if reason else "")
    )
