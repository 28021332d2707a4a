"""Checks the events of runs, given in order, against the hash chain and their payloads (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from runfold.ledger.lifecycle import FIRST, MOVES, RESERVED, TERMINAL, State
from runfold.ledger.proof.decisions import DecisionCheck
from runfold.ledger.proof.encoding import commits_to, event_hash
from runfold.ledger.proof.leases import LeaseCheck

MAX_FINDINGS: Final = 100


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: its run (None: no single run), its event (None: the whole run)."""

    run_id: UUID | None
    version: int | None
    problem: str
    detail: str


def forgotten_key(run_id: UUID, version: int, key: str) -> Finding:
    """Return the finding that the idempotency key of an event is not kept as its own."""
    return Finding(
        run_id,
        version,
        "key",
        f"the idempotency key {key!r} is not kept: its command could be made twice",
    )


class ChainCheck:
    """Takes events in (run, version) order and collects what does not hold.

    Checks hashes, gaps, payloads, that time does not go back within a run, that each event may
    follow the state before it, that what a worker wrote was written under the run's lease, and that
    each decision is about its request. Keeps one run's erasures in memory.
    """

    def __init__(self) -> None:
        self.runs = self.events = self.payloads = self.erased = 0
        self.findings: list[Finding] = []
        self.more = 0
        """How many findings there were besides the first hundred."""
        self._run: UUID | None = None
        self._previous, self._version = b"", 0
        self._recorded_at: datetime | None = None
        self._state: str | None = None
        self._decisions, self._leases = DecisionCheck(), LeaseCheck()
        self._missing: set[int] = set()
        self._found: list[Finding] = []

    def add(self, event: Mapping[str, Any]) -> None:
        """Check the next event."""
        if event["run_id"] != self._run:
            self.close()
            self._run, self._previous, self._version = event["run_id"], b"", 0
            self._recorded_at = self._state = None
            self._decisions, self._leases = DecisionCheck(), LeaseCheck()
            self.runs += 1
        self.events += 1
        version = event["version"]
        if version != self._version + 1:
            self._report(version, "gap", f"version {version} follows version {self._version}")
        self._check_hash(event)
        self._check_time(event)
        self._check_move(event)
        self._check_payload(event)
        if event["type"] == "payload.erased" and event["compensates"] in self._missing:
            self._missing.remove(event["compensates"])
            self.erased += 1
        self._previous, self._version = bytes(event["hash"]), version

    def close(self) -> None:
        """End the current run: what is missing and was not erased is a finding."""
        for version in self._missing:
            self._report(
                version, "payload", "the payload is missing, and no event says that it was erased"
            )
        # The first bad event first, also where a missing payload is known only now.
        self._found.sort(key=lambda finding: finding.version or 0)
        room = MAX_FINDINGS - len(self.findings)
        self.findings += self._found[:room]
        self.more += len(self._found[room:])
        self._missing, self._found = set(), []

    def _check_hash(self, event: Mapping[str, Any]) -> None:
        try:
            computed = event_hash(self._previous, event)
        except (AttributeError, TypeError, ValueError, ArithmeticError) as error:
            self._report(event["version"], "unreadable", f"a fact of it cannot be read: {error}")
            return
        if computed != event["hash"]:
            self._report(
                event["version"],
                "hash",
                "the stored hash is not the hash of the event and the one before it",
            )

    def _check_time(self, event: Mapping[str, Any]) -> None:
        before, at = self._recorded_at, event["recorded_at"]
        if not isinstance(at, datetime) or at.tzinfo is None:  # one of no calendar, or an infinity
            self._report(event["version"], "time", f"it was recorded at no time: {at}")
            return
        if before is not None and at < before:
            self._report(
                event["version"], "time", f"it was recorded before version {self._version}"
            )
        self._recorded_at = at

    def _check_move(self, event: Mapping[str, Any]) -> None:
        before, after, type_ = self._state, event["state"], event["type"]
        if is_unknown(type_):
            detail = f"this code knows no {type_}: verify with the newest version of Runfold"
            self._report(event["version"], "unknown", detail)
        elif not may_follow(type_, before, after):
            to = f" and lead to {after}" if after else ""
            self._report(
                event["version"], "illegal", f"{type_} may not follow {before or 'nothing'}{to}"
            )
        self._state = after or before
        for check in (self._decisions, self._leases):
            if (problem := check.problem(event)) is not None:
                self._report(event["version"], "illegal", f"{type_}: {problem}")

    def _check_payload(self, event: Mapping[str, Any]) -> None:
        body, stored = event["body"], event["payload_hash"]
        if body is not None:
            self.payloads += 1
            if not commits_to(stored, event["salt"], body):
                self._report(
                    event["version"],
                    "payload",
                    "the payload is not the one that the event commits to",
                )
        elif stored is not None:
            self._missing.add(event["version"])

    def _report(self, version: int, problem: str, detail: str) -> None:
        if self._run is None:
            return
        if len(self._found) < MAX_FINDINGS:
            self._found.append(Finding(self._run, version, problem, detail))
        else:
            self.more += 1


def is_unknown(type_: str) -> bool:
    """Whether a type has a prefix of the ledger's, but is none that this code knows."""
    return type_ != FIRST and type_ not in MOVES and type_.split(".", 1)[0] in RESERVED


def may_follow(type_: str, before: str | None, after: str | None) -> bool:
    """Whether the state machine allows an event of a type between two states; None: no state."""
    if before is None or type_ == FIRST:
        return (type_, before, after) == (FIRST, None, State.PENDING)
    if type_ in MOVES:
        return (before, after) in MOVES[type_]
    return after is None and before not in TERMINAL and not is_unknown(type_)
