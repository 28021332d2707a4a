"""The control history's own chains: their hashes and their numbers (pure).

The SQL twin of the hash is `ledger/sql/control/control_hash.sql`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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

    It compares the events within each list, each list with the database's, which says when the list
    began, and each list with its head, which has the number and the hash of its newest event.
    """

    def __init__(self) -> None:
        self._list: str | None = None
        self._previous, self._number = b"", 0
        self._is_database_begun = False

    def add(self, event: Mapping[str, Any]) -> Iterator[Finding]:
        """Check the next event: of the same list the next number, or the first of another list.

        With the event come its list's head (`head_number`, `head_hash`) and whether it `is_last`
        in its list, its list `is_begun` in the database's, and the list that it begins is there
        (`has_list`).
        """
        project_id, number = event["project_id"], event["number"]
        if project_id != self._list:
            self._list, self._previous, self._number = project_id, b"", 0
            self._is_database_begun |= project_id == DATABASE
        if number != self._number + 1:
            yield control_finding(
                f"event {number} follows event {self._number} of list {project_id}"
            )
        if control_hash(self._previous, event) != event["hash"]:
            yield control_finding(
                f"the hash of event {number} ({event['type']} {event['subject']}) of list "
                f"{project_id} is not the hash of it and of the one before it"
            )
        self._previous, self._number = bytes(event["hash"]), number
        if project_id == DATABASE and event["type"] == _BEGUN and not event["has_list"]:
            yield _empty(event["subject"].removeprefix("list:"))
        if event["is_last"]:
            yield from self._ended(event)

    def _ended(self, event: Mapping[str, Any]) -> Iterator[Finding]:
        project_id = event["project_id"]
        if project_id != DATABASE and not event["is_begun"]:
            yield control_finding(f"list {project_id} was never begun")
        head = {"number": event["head_number"], "hash": event["head_hash"]}
        if (head["number"], head["hash"]) != (event["number"], event["hash"]):
            yield end_finding(project_id, event, head)

    def finish(self) -> Iterator[Finding]:
        """Check, after the last event, that the database's list was there."""
        if not self._is_database_begun:
            yield _empty(DATABASE)


def end_finding(
    project_id: str, newest: Mapping[str, Any] | None, head: Mapping[str, Any] | None
) -> Finding:
    """Return that a list does not end with the event that its head names."""
    return control_finding(
        f"list {project_id} ends with {_end(newest)}, by its head it ends with {_end(head)}"
    )


def _end(event: Mapping[str, Any] | None) -> str:
    if event is None or event["number"] is None:
        return "no event"
    return f"event {event['number']} and hash {event['hash'].hex()}"


def _empty(project_id: str) -> Finding:
    return control_finding(f"list {project_id} was begun, and has no event")


def control_finding(detail: str) -> Finding:
    """Return a finding about the control history, which belongs to no run."""
    return Finding(None, None, "control", detail)
