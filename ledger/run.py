"""What the ledger hands out: a run, a lease on it, and receipts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Self
from uuid import UUID

from runfold.ledger.lifecycle import TERMINAL, WAITING, State
from runfold.ledger.payload import decode_payload


@dataclass(slots=True)
class Run:
    """A run as it was at `version`. Times are aware and in UTC; `cost_usd` has six places.

    Not frozen: to make a frozen one takes a tenth of a submit.
    """

    run_id: UUID
    project_id: str
    kind: str
    state: State
    version: int
    attempt_count: int
    max_attempts: int
    priority: int
    worker_id: str | None
    token: int | None
    lease_until: datetime | None
    heartbeat_at: datetime | None
    available_at: datetime | None
    """From when the run can be claimed; None when it cannot."""
    started_at: datetime | None
    completed_at: datetime | None
    created_at: datetime
    updated_at: datetime
    deadline: datetime | None
    wait_until: datetime | None
    """When an approval that nobody decided ends, or a parked wait that nobody answered."""
    approvals: int | None
    """How many persons must approve what the run waits for; None where one is enough."""
    approved: int | None
    """How many of them have; None where one is enough."""
    cancel_requested_at: datetime | None
    cost_usd: Decimal
    step_count: int
    error_code: str | None
    error_detail: Any
    input: Any
    output: Any
    output_sha256: str | None
    """Hex digest that the worker gave for an output it keeps elsewhere."""
    tags: tuple[str, ...]
    key: str | None
    hash: bytes
    """Commits to every event of the run up to `version`."""

    @property
    def is_terminal(self) -> bool:
        """Whether the run has ended."""
        return self.state in TERMINAL

    @property
    def is_parked(self) -> bool:
        """Whether the run waits and no worker holds it."""
        return self.token is None and self.state in WAITING

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Build a run from a row of the view `ledger.run`.

        Content that cannot be read is an Unreadable.
        """
        content = {name: decode_payload(row[name]) for name in _CONTENT}
        return cls.from_state(row, **content)

    @classmethod
    def from_state(cls, row: Mapping[str, Any], **content: Any) -> Self:
        """Build a run from a row of table `ledger.run_state` and its decoded content."""
        values = {name: row[name] for name in _FACTS} | content
        digest = values["output_sha256"]
        values["output_sha256"] = digest.hex() if digest is not None else None
        values["state"] = State(values["state"])
        values["tags"] = tuple(values["tags"])
        values["hash"] = bytes(values["hash"])
        return cls(**values)


_CONTENT: Final = ("input", "output", "error_detail")
_FACTS: Final = tuple(field.name for field in fields(Run) if field.name not in _CONTENT)


@dataclass(slots=True)
class Lease:
    """A worker's hold on a run: every write of the worker carries `token`.

    After a heartbeat: `lost` means that the run is no longer held (stop working on it),
    `cancel_requested` that somebody asked to cancel it, `late_ms` how many milliseconds after the
    lease's end the beat came.

    Not frozen: a frozen one costs five times as much to make, and the database checks the token
    whatever is written into it.
    """

    run_id: UUID
    token: int
    attempt: int
    max_attempts: int
    kind: str
    priority: int
    input: Any
    worker_id: str
    until: datetime
    ttl: timedelta
    cancel_requested: bool = False
    late_ms: int | None = None
    lost: bool = False
    parent: UUID | None = None
    """The run that asked for this one."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof that an event was appended: `hash` commits to it and all earlier events of the run."""

    run_id: UUID
    version: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Submission:
    """A submitted run; `created` is False when the key named an earlier one."""

    run_id: UUID
    created: bool
