"""The control history's own chains: their hashes and their numbers (pure).

The SQL twin of the hash is `ledger/sql/access/control_hash.sql`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Any, Final

from runfold.ledger.proof.chain import Finding
from runfold.ledger.proof.encoding import LEAF, lines

CONTROL_TAG: Final = "runfold/control/v1"
DATABASE: Final = "*"
"""The list of the database, beside those of its projects."""
_BEGUN: Final = "list.begun"
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
    """Takes the lists of the control history, one after the other, and yields what does not hold.

    Within a list, between the lists and the database's, which says when each of them began, and
    between each list and its head, the number and the hash of its newest event.
    """

    def __init__(self, heads: Iterable[Mapping[str, Any]]) -> None:
        self._heads = {head["project_id"]: (head["number"], head["hash"]) for head in heads}
        self._ends: dict[str, tuple[int, bytes]] = {}
        self._list: str | None = None
        self._previous, self._number = b"", 0
        self._found: set[str] = set()
        self._begun = {DATABASE}

    def add(self, event: Mapping[str, Any]) -> Iterator[Finding]:
        """Check the next event: of the same list the next number, or the first of another list."""
        of, number = event["project_id"], event["number"]
        if of != self._list:
            self._list, self._previous, self._number = of, b"", 0
            self._found.add(of)
        if of == DATABASE and event["type"] == _BEGUN:
            self._begun.add(event["subject"].removeprefix("list:"))
        if number != self._number + 1:
            yield control_finding(f"event {number} follows event {self._number} of list {of}")
        if control_hash(self._previous, event) != event["hash"]:
            yield control_finding(
                f"the hash of event {number} ({event['type']} {event['subject']}) of list {of} is "
                "not the hash of it and of the one before it"
            )
        self._previous, self._number = bytes(event["hash"]), number
        self._ends[of] = number, self._previous

    def finish(self) -> Iterator[Finding]:
        """Check, after the last event, that the lists are those that were begun."""
        for of in sorted(self._begun - self._found):
            yield control_finding(f"list {of} was begun, and has no event")
        for of in sorted(self._found - self._begun):
            yield control_finding(f"list {of} was never begun")
        for of in sorted(self._heads | self._ends):
            if self._heads.get(of) != self._ends.get(of):
                yield control_finding(
                    f"list {of} ends with {_end(self._ends.get(of))}, by its head it ends with "
                    f"{_end(self._heads.get(of))}"
                )


def _end(end: tuple[int, bytes] | None) -> str:
    return f"event {end[0]} and hash {end[1].hex()}" if end else "no event"


def control_finding(detail: str) -> Finding:
    """Return a finding about the control history, which belongs to no run."""
    return Finding(None, None, "control", detail)
