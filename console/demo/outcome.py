"""The demo's outcome, and everything that must be true of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic_core import to_jsonable_python

from runfold.console.shared.plain import number_of
from runfold.ledger import Ledger, Run, State
from runfold.ledger.events import Event, LeaseExpired
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.reading.report import Report

_STATES: Final = (
    "SELECT state, count(*) AS runs FROM ledger.run_state WHERE project_id = $1 GROUP BY state"
)
_LOST: Final = (
    "SELECT expiry.run_id FROM ledger.event AS expiry JOIN ledger.event AS lease "
    "ON (lease.project_id, lease.run_id, lease.version)"
    " = (expiry.project_id, expiry.run_id, expiry.compensates) "
    "WHERE expiry.project_id = $1 AND expiry.type = 'lease.expired' AND lease.worker_id = $2 "
    "ORDER BY expiry.run_id"
)

States = Mapping[str, int]
"""How many runs are in each state."""


@dataclass(slots=True)
class Outcome:
    """The outcome, for people and for programs."""

    project: str
    files: int
    states: States = field(default_factory=dict)
    killed: str | None = None
    killed_pid: int | None = None
    lost: list[Run] = field(default_factory=list)
    """The runs that the killed worker held, as they are at the end."""
    attempts: list[int] = field(default_factory=list)
    """The attempts of each of these, by its history."""
    granted: list[Run] = field(default_factory=list)
    rejected: list[Run] = field(default_factory=list)
    history: Sequence[Event] = ()
    """The longest history of the runs among `lost`."""
    report: Report | None = None
    seconds: float = 0.0

    def problems(self) -> list[str]:
        """Return everything that is not as it must be; empty if the demo went well."""
        return [
            *self._wrong_states(),
            *self._wrong_attempts(),
            *self._wrong_approvals(),
            *(f"verify: {finding}" for finding in (self.report.findings if self.report else ())),
        ]

    def _wrong_states(self) -> list[str]:
        expected = Counter(
            {"completed": self.files - len(self.rejected), "cancelled": len(self.rejected)}
        )
        if Counter(self.states) == expected:
            return []
        return [f"the runs ended as {_counted(self.states)}, not as {_counted(expected)}"]

    def _wrong_attempts(self) -> list[str]:
        if self.killed is None:
            return ["no worker was killed: every run had ended before; run the demo again"]
        if not self.lost:
            return [f"no lease of {self.killed} expired, though it was killed"]
        rejected = {run.run_id for run in self.rejected}
        wrong = []
        for run, attempts in zip(self.lost, self.attempts, strict=True):
            expected = State.CANCELLED if run.run_id in rejected else State.COMPLETED
            if (run.state, run.attempt_count) != (expected, attempts):
                wrong.append(
                    f"run {run.run_id} of {self.killed} is {run.state} "
                    f"on attempt {run.attempt_count}, not {expected} on attempt {attempts}"
                )
        return wrong

    def _wrong_approvals(self) -> list[str]:
        if self.granted and len(self.rejected) == 1:
            return []
        return [
            (
                f"{number_of(len(self.granted), 'approval')} granted and "
                f"{len(self.rejected)} rejected, not some and 1"
            )
        ]

    def shown(self) -> dict[str, Any]:
        """Return all of it as JSON."""
        problems = self.problems()
        return {
            "ok": not problems,
            "problems": problems,
            "project": self.project,
            "files": self.files,
            "seconds": round(self.seconds, 2),
            "states": dict(self.states),
            "killed": {
                "worker_id": self.killed,
                "pid": self.killed_pid,
                "run_ids": [str(run.run_id) for run in self.lost],
            },
            "approvals": {
                "granted": [str(run.run_id) for run in self.granted],
                "rejected": [str(run.run_id) for run in self.rejected],
            },
            "history": [_event(event) for event in self.history],
            "verify": self.report and {
                "ok": self.report.ok,
                "runs": self.report.runs,
                "events": self.report.events,
                "payloads": self.report.payloads,
                "findings": [str(finding) for finding in self.report.findings],
            },
        }  # fmt: skip


async def count_states(ledger: Ledger) -> States:
    """Count the runs of the project by state."""
    return {
        row["state"]: row["runs"] for row in await fetch(ledger.pool, _STATES, ledger.project_id)
    }


async def read_outcome(ledger: Ledger, outcome: Outcome) -> None:
    """Fill in what the ledger knows: the states, the lost runs, one history, the verification."""
    outcome.states = await count_states(ledger)
    rows = await fetch(ledger.pool, _LOST, ledger.project_id, outcome.killed)
    outcome.lost = [await ledger.get(row["run_id"]) for row in rows]
    histories = [await ledger.history(run.run_id) for run in outcome.lost]
    outcome.attempts = [1 + sum(map(_is_charged, history)) for history in histories]
    outcome.history = max(histories, key=len, default=())
    outcome.report = await ledger.verify()


def _is_charged(event: Event) -> bool:
    """Whether a lapsed lease was an attempt; one under which nothing was begun was none."""
    return isinstance(event, LeaseExpired) and event.attempt is None


def facts_of(event: Event) -> dict[str, Any]:
    """Return an event's facts without digests, also of a type unknown to this code."""
    facts = event.model_dump(exclude_none=True, exclude={"hash", "payload_hash", "output_sha256"})
    opaque, raw = facts.pop("facts", {}), facts.pop("raw", None)
    return {**facts, **opaque, **(raw if isinstance(raw, dict) else {})}


def _event(event: Event) -> dict[str, Any]:
    return {**to_jsonable_python(facts_of(event)), "hash": event.hash.hex()}


def _counted(states: States) -> str:
    return ", ".join(f"{count} {state}" for state, count in sorted(states.items()) if count)
