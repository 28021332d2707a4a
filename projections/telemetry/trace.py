"""A run's history as a trace: spans for the run, its attempts, steps, tools and waits (pure).

The ids follow from the run and the events, so that exporting a run twice gives the same spans. The
trace's id is the run's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any, Final, TypeAlias
from uuid import UUID

from runfold.ledger import names
from runfold.ledger.events import Event, OpaqueEvent
from runfold.ledger.lifecycle import TERMINAL, State
from runfold.projections.state.run_state import LEASED

Value: TypeAlias = str | int | float | bool

_ANSWERS: Final = frozenset(
    {
        "tool.completed",
        "tool.failed",
        "approval.granted",
        "approval.rejected",
        "approval.expired",
        "approval.lapsed",
    }
)


@dataclass(frozen=True, slots=True)
class SpanEvent:
    """A moment within a span: a heartbeat, a note, a refused write."""

    name: str
    at: datetime
    attributes: Mapping[str, Value]


@dataclass(slots=True)
class Span:
    """A stretch of a run's life; `end` None while it lasts, `failed` None if nothing says."""

    trace_id: int
    span_id: int
    parent_id: int | None
    name: str
    start: datetime
    attributes: dict[str, Value] = field(default_factory=dict)
    marks: list[SpanEvent] = field(default_factory=list)
    end: datetime | None = None
    failed: bool | None = None
    error: str | None = None
    link: UUID | None = None
    """The id of the parent run, which is the id of its trace."""


def spans(run_id: UUID, history: Sequence[Event]) -> list[Span]:
    """Return the spans of a run's whole history: the run's own first, then as they begin.

    A step has one event, at its end: its span begins with the last event before it that is not a
    heartbeat. No content of payloads is in a span but the names of what was called.
    """
    return _Trace(run_id).spans_of(history)


class _Trace:
    def __init__(self, run_id: UUID) -> None:
        self.run_id = run_id
        self.found: list[Span] = []
        self.root: Span | None = None
        self.attempt: Span | None = None
        self.queued: Span | None = None
        self.wait: Span | None = None
        self.before: datetime | None = None

    def spans_of(self, history: Sequence[Event]) -> list[Span]:
        for event in history:
            if event.recorded_at is not None:
                self._add(event, event.recorded_at)
                if event.type != "lease.heartbeat":
                    self.before = event.recorded_at
        return self.found

    def _add(self, event: Event, at: datetime) -> None:
        if self.root is None:
            self._begin(event, at)
            return
        match event.type:
            case "lease.acquired":
                self._lease(event, at)
            case "step.completed" | "step.failed":
                step = self._open(
                    _named("step", event), event, self.before or at, self.attempt or self.root
                )
                self._close(step, at, failed=event.type == "step.failed", error=error_of(event))
            case "tool.requested" | "approval.requested":
                # A parked wait outlives its attempt, so it belongs to the run.
                parked = fact(event, "token") is None
                parent = self.root if parked else self.attempt or self.root
                what = event.type.partition(".")[0]
                self.wait = self._open(_named(what, event), event, at, parent)
            case _ if event.type in _ANSWERS:
                self._answer(event, at)
            case _ if event.type not in LEASED:
                attributes: dict[str, Value] = {
                    names.ACTOR: event.actor or "",
                    names.VERSION: event.version or 0,
                }
                (self.attempt or self.root).marks.append(SpanEvent(event.type, at, attributes))
        self._end_attempt(event, at)
        self._end_run(event, at)

    def _begin(self, event: Event, at: datetime) -> None:
        kind = str(fact(event, "kind") or "")
        self.root = self._open(f"run {kind}".rstrip(), event, at, None)
        self.root.attributes |= {
            names.RUN_ID: str(self.run_id),
            names.KIND: kind,
            names.PROJECT: event.project_id or "",
        }
        # What an older release stored as the parent may be any text.
        with suppress(ValueError):
            self.root.link = UUID(str(fact(event, "parent")))
        self.queued = self._open("queued", event, at, self.root)

    def _lease(self, event: Event, at: datetime) -> None:
        self._close(self.queued, at)
        self._close(self.wait, at, failed=None)
        self.queued = self.wait = None
        attempt = fact(event, "attempt") or 0
        self.attempt = self._open(f"attempt {attempt}", event, at, self.root)
        self.attempt.attributes |= {
            names.WORKER_ID: fact(event, "worker_id") or "",
            names.TOKEN: fact(event, "token") or 0,
            names.ATTEMPT: attempt,
        }

    def _answer(self, event: Event, at: datetime) -> None:
        if self.wait is not None:
            self.wait.attributes[names.ACTOR] = event.actor or ""
        failed = event.type not in {"tool.completed", "approval.granted"}
        self._close(self.wait, at, failed=failed, error=error_of(event))
        self.wait = None

    def _end_attempt(self, event: Event, at: datetime) -> None:
        if event.type in LEASED and fact(event, "token") is None and self.attempt is not None:
            failed = event.type in {"lease.expired", "run.failed", "run.retried", "run.timed_out"}
            self.attempt.attributes[names.OUTCOME] = event.type
            self._close(self.attempt, at, failed=failed, error=error_of(event))
            self.attempt = None

    def _end_run(self, event: Event, at: datetime) -> None:
        state = fact(event, "state")
        if state == State.PENDING:
            self._close(self.wait, at, failed=None)
            self.wait = None
            self.queued = self._open("queued", event, at, self.root)
        if state in TERMINAL and self.root is not None:
            for open_ in (self.wait, self.queued):
                self._close(open_, at, failed=None)
            self.root.attributes[names.STATE] = str(state)
            failed = state in {State.FAILED, State.TIMEOUT}
            self._close(self.root, at, failed=failed, error=error_of(event))

    def _open(self, name: str, event: Event, at: datetime, parent: Span | None) -> Span:
        digest = sha256(f"{self.run_id}/{event.version}/{name}".encode()).digest()
        span = Span(
            self.run_id.int,
            int.from_bytes(digest[:8], "big") or 1,
            parent.span_id if parent else None,
            name,
            at,
            {names.VERSION: event.version or 0},
        )
        self.found.append(span)
        return span

    def _close(
        self,
        span: Span | None,
        at: datetime,
        *,
        failed: bool | None = False,
        error: str | None = None,
    ) -> None:
        if span is not None and span.end is None:
            span.end, span.failed = at, failed
            span.error = error if failed else None


def fact(event: Event, name: str) -> Any:
    """Return a fact of an event, also of one that this code has no model for; None without it."""
    return event.facts.get(name) if isinstance(event, OpaqueEvent) else getattr(event, name, None)


def error_of(event: Event) -> str | None:
    """Return the code of the error that an event carries."""
    code = fact(event, "error_code")
    return None if code is None else str(code)


def _named(what: str, event: Event) -> str:
    return f"{what} {fact(event, 'name') or ''}".rstrip()
