"""What a check found: its counts and its findings, of which not all are shown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from runfold.ledger.proof.chain import MAX_FINDINGS, ChainCheck, Finding
from runfold.ledger.proof.fold import Drift


@dataclass(frozen=True, slots=True)
class Report:
    """What was checked and what was found; `ok` when nothing was found wrong."""

    runs: int
    events: int
    payloads: int
    erased: int
    findings: tuple[Finding, ...] = field(default=())
    """At most 100, the first bad event first."""
    more: int = 0
    """How many findings there were besides these."""
    unchecked: tuple[str, ...] = ()
    """What was not checked: this session may not read it, or this version does not know it."""

    @property
    def ok(self) -> bool:
        """Whether every check passed."""
        return not self.findings


class Tally:
    """Counts what is checked, and keeps the first findings."""

    def __init__(self) -> None:
        self.runs = self.events = self.payloads = self.erased = self.more = 0
        self.findings: list[Finding] = []
        self.unlisted: set[str] = set()
        """The kinds of runs that the project does not list."""
        self.unchecked: list[str] = []

    def chain(self, chain: ChainCheck) -> None:
        """Add what the check of hash chains counted and found."""
        self.runs += chain.runs
        self.events += chain.events
        self.payloads += chain.payloads
        self.erased += chain.erased
        self.more += chain.more
        self.found(chain.findings)

    def drift(self, drift: Iterable[Drift]) -> None:
        """Add states that are not the fold of their events."""
        self.found(_finding(run) for run in drift)

    def found(self, findings: Iterable[Finding]) -> None:
        """Add findings."""
        for finding in findings:
            if len(self.findings) < MAX_FINDINGS:
                self.findings.append(finding)
            else:
                self.more += 1

    def add(self, other: Tally) -> None:
        """Add what another tally counted and found."""
        self.runs += other.runs
        self.events += other.events
        self.payloads += other.payloads
        self.erased += other.erased
        self.more += other.more
        self.unlisted |= other.unlisted
        self.found(other.findings)

    def report(self) -> Report:
        """Return the report."""
        counts = (self.runs, self.events, self.payloads, self.erased)
        return Report(*counts, tuple(self.findings), self.more, tuple(self.unchecked))


def _finding(drift: Drift) -> Finding:
    problem = str(drift)
    if drift.stored and drift.expected:
        problem = f"run_state differs from the fold of the events: {problem}"
    return Finding(drift.run_id, None, "drift", problem)
