"""The life of a run: its states, the legal edges between them and the error codes (pure)."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class State(StrEnum):
    """The state of a run; stored as text."""

    PENDING = "pending"
    RUNNING = "running"
    WAITING_TOOL = "waiting_tool"
    WAITING_APPROVAL = "waiting_approval"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"


TERMINAL: Final = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED, State.TIMEOUT})
WAITING: Final = frozenset({State.WAITING_TOOL, State.WAITING_APPROVAL})

EDGES: Final[dict[State, frozenset[State]]] = {
    State.PENDING: frozenset({State.RUNNING, State.CANCELLED}),
    State.RUNNING: frozenset(
        {
            State.WAITING_TOOL,
            State.WAITING_APPROVAL,
            State.COMPLETED,
            State.FAILED,
            State.CANCELLED,
            State.TIMEOUT,
        }
    ),
    State.WAITING_TOOL: frozenset({State.RUNNING, State.FAILED, State.CANCELLED}),
    State.WAITING_APPROVAL: frozenset({State.RUNNING, State.CANCELLED, State.TIMEOUT}),
    **dict.fromkeys(sorted(TERMINAL), frozenset()),
}
"""The legal transitions. Going back to pending is never one of them."""

AFTER_TERMINAL: Final = frozenset({"write.refused", "note.added", "payload.erased"})
"""The only event types that may follow a terminal state."""

OPEN: Final = frozenset(State) - TERMINAL
HELD: Final = frozenset({State.RUNNING}) | WAITING
"""The states in which a worker may hold a run."""


def _moves(
    sources: frozenset[State], *targets: State | None
) -> frozenset[tuple[State, State | None]]:
    return frozenset((source, target) for source in sources for target in targets)


MOVES: Final[dict[str, frozenset[tuple[State, State | None]]]] = {
    "lease.acquired": _moves(WAITING | {State.PENDING}, State.RUNNING),
    "lease.heartbeat": _moves(HELD, None),
    "lease.released": _moves(HELD, State.PENDING),
    "lease.expired": _moves(HELD, State.PENDING),
    "step.completed": _moves(HELD, None),
    "step.failed": _moves(HELD, None),
    "tool.requested": _moves(frozenset({State.RUNNING}), State.WAITING_TOOL),
    "tool.completed": _moves(frozenset({State.WAITING_TOOL}), State.RUNNING, None),
    "tool.failed": _moves(frozenset({State.WAITING_TOOL}), State.RUNNING, None),
    "approval.requested": _moves(frozenset({State.RUNNING}), State.WAITING_APPROVAL),
    "approval.signed": _moves(frozenset({State.WAITING_APPROVAL}), None),
    "approval.granted": _moves(frozenset({State.WAITING_APPROVAL}), State.RUNNING, None),
    "approval.rejected": _moves(frozenset({State.WAITING_APPROVAL}), State.CANCELLED),
    "approval.expired": _moves(frozenset({State.WAITING_APPROVAL}), State.CANCELLED, State.TIMEOUT),
    "approval.lapsed": _moves(frozenset({State.WAITING_APPROVAL}), State.RUNNING, None),
    "run.completed": _moves(frozenset({State.RUNNING}), State.COMPLETED),
    "run.failed": _moves(frozenset({State.RUNNING, State.WAITING_TOOL}), State.FAILED),
    "run.cancelled": _moves(OPEN, State.CANCELLED),
    "run.timed_out": _moves(frozenset({State.RUNNING, State.WAITING_APPROVAL}), State.TIMEOUT),
    "run.retried": _moves(frozenset({State.RUNNING, State.WAITING_TOOL}), State.PENDING),
    "cancel.requested": _moves(HELD, None),
    "signal.received": _moves(OPEN, None),
    **dict.fromkeys(sorted(AFTER_TERMINAL), _moves(frozenset(State), None)),
}
"""What each event type may do after the first: (state before, state after or None for no change).

None as the answer to a tool or an approval means that the run is parked: the answer makes it
claimable, and the next `lease.acquired` takes it to running. A type that is not listed is a
user's own: it may follow any open state and changes none.
"""

FIRST: Final = "run.submitted"
"""The type of every run's first event, which makes it pending."""

RESERVED: Final = frozenset(type_.split(".", 1)[0] for type_ in (*MOVES, FIRST))
"""First segments of event types that users cannot take for their own."""

LAPSED: Final = "lapsed"
"""The `wait_outcome` of an approval that leaves the run open when nobody decides."""

LEASE_EXPIRED: Final = "E-RUN-001"
"""The lease passed its end without a heartbeat; the run was put back to pending."""

ATTEMPTS_EXHAUSTED: Final = "E-RUN-002"
"""The last allowed attempt lost its lease."""

DEADLINE_PASSED: Final = "E-RUN-003"
"""The run passed its own deadline, or an approval or a parked wait passed its own."""

HANDLER_FAILED: Final = "E-RUN-004"
"""A handler, or a step or tool of it, raised an error."""

INPUT_REFUSED: Final = "E-RUN-005"
"""The run's input does not fit the handler's annotation."""

OUTPUT_REFUSED: Final = "E-RUN-006"
"""The handler's output does not fit its annotation, is not JSON, or exceeds the payload limit."""

HISTORY_MISMATCH: Final = "E-RUN-007"
"""The handler does not ask for the steps that the run's history has recorded."""

NOT_BEGUN: Final = "E-RUN-008"
"""A worker that leased the run ahead of need had no free slot for it in time."""
