"""The control history's own chain: its hashes and its numbers (pure).

The SQL twin of the hash is `ledger/sql/access/control_hash.sql`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any, Final

from runfold.ledger.proof.chain import Finding
from runfold.ledger.proof.encoding import LEAF, lines

CONTROL_TAG: Final = "runfold/control/v1"
CONTROL_FIELDS: Final[tuple[tuple[str, str], ...]] = (
    ("number", "int"),
    ("recorded_at", "time"),
    ("project_id", "text"),
    ("credential", "text"),
    ("type", "text"),
    ("subject", "text"),
    ("facts", "text"),
    ("actor", "text"),
    ("reason", "text"),
)
"""The hashed columns of table `control_event`, in the order of encoding."""


def control_hash(previous: bytes, event: Mapping[str, Any]) -> bytes:
    """Return 32 bytes that commit to an event of the control history and to all before it."""
    return sha256(LEAF + lines(CONTROL_TAG, CONTROL_FIELDS, previous, event).encode()).digest()


class ControlCheck:
    """Takes the control history in the order of its numbers, and yields what does not hold."""

    def __init__(self) -> None:
        self._previous, self._number = b"", 0

    def add(self, event: Mapping[str, Any]) -> Iterator[Finding]:
        """Check the next event."""
        number = event["number"]
        if number != self._number + 1:
            yield control_finding(f"event {number} follows event {self._number}")
        if control_hash(self._previous, event) != event["hash"]:
            yield control_finding(
                f"the hash of event {number} ({event['type']} {event['subject']}) is not the hash "
                "of it and of the one before it"
            )
        self._previous, self._number = bytes(event["hash"]), number


def control_finding(detail: str) -> Finding:
    """Return a finding about the control history, which belongs to no run."""
    return Finding(None, None, "control", detail)
