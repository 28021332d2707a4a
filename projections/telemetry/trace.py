"""A run's history as a trace: spans for the run, its attempts, steps, tools and waits (pure).

The ids follow from the run and the events, so that exporting a run twice gives the same spans. The
trace's id is the run's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

from runfold.ledger import names
from runfold.ledger.events import Event
from runfold.ledger.lifecycle import TERMINAL, State
from runfold.projections.state.run_state import LEASED

Value = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Mark:
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
    marks: list[Mark] = field(default_factory=list)
    end: datetime | None = None
    failed: bool | None = None
    error: str | None = None
    link: UUID | None = None
    """The id of the parent run, which is the id of its trace."""


def spans(run_id: UUID, history: Sequence[Event]) -> list[Span]:
    """Return the spans of a run's whole history: the run's own first, then as they begin.

    A step has one event, at its end: its span begins with the event before it that is no heartbeat.
    No content of payloads is in a span but the names of what was called.
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
        facts: Any = event
        if self.root is None:
            self.root = self._open(f"run {facts.kind}", event, at, None)
            self.root.attributes |= {
                names.RUN_ID: str(self.run_id),
                names.KIND: facts.kind,
                names.PROJECT: event.project_id or "",
            }
            parent = getattr(facts, "parent", None)
            self.root.link = UUID(parent) if parent else None
            self.queued = self._open("queued", event, at, self.root)
            return
        match event.type:
            case "lease.acquired":
                self._close(self.queued, at)
                self.queued = None
                self._close(self.wait, at, failed=None)
                self.wait = None
                self.attempt = self._open(f"attempt {facts.attempt}", event, at, self.root)
                self.attempt.attributes |= {
                    names.WORKER_ID: facts.worker_id or "",
                    names.TOKEN: facts.token or 0,
                    names.ATTEMPT: facts.attempt or 0,
                }
            case "step.completed" | "step.failed":
                step = self._open(
                    f"step {facts.name}", event, self.before or at, self.attempt or self.root
                )
                self._close(step, at, failed=event.type == "step.failed", error=facts_error(facts))
            case "tool.requested" | "approval.requested":
                what = event.type.partition(".")[0]
                # A parked wait outlives its attempt, so it belongs to the run.
                parent_span = self.root if facts.token is None else self.attempt or self.root
                self.wait = self._open(
                    f"{what} {facts.name or ''}".rstrip(), event, at, parent_span
                )
            case (
                "tool.completed"
                | "tool.failed"
                | "approval.granted"
                | "approval.rejected"
                | "approval.expired"
            ):
                if self.wait is not None:
                    self.wait.attributes[names.ACTOR] = event.actor or ""
                self._close(
                    self.wait,
                    at,
                    failed=event.type not in {"tool.completed", "approval.granted"},
                    error=facts_error(facts),
                )
                self.wait = None
            case _ if event.type not in LEASED:
                mark = Mark(
                    event.type,
                    at,
                    {names.ACTOR: event.actor or "", names.VERSION: event.version or 0},
                )
                (self.attempt or self.root).marks.append(mark)
        self._end_attempt(event, facts, at)

    def _end_attempt(self, event: Event, facts: Any, at: datetime) -> None:
        state = getattr(facts, "state", None)
        if (
            event.type in LEASED
            and getattr(facts, "token", None) is None
            and self.attempt is not None
        ):
            failed = event.type in {"lease.expired", "run.failed", "run.retried", "run.timed_out"}
            self.attempt.attributes[names.OUTCOME] = event.type
            self._close(self.attempt, at, failed=failed, error=facts_error(facts))
            self.attempt = None
        if state == State.PENDING and self.root is not None:
            self._close(self.wait, at, failed=None)
            self.wait = None
            self.queued = self._open("queued", event, at, self.root)
        if state in TERMINAL and self.root is not None:
            for open_ in (self.wait, self.queued):
                self._close(open_, at, failed=None)
            self.root.attributes[names.STATE] = str(state)
            self._close(
                self.root,
                at,
                failed=state in {State.FAILED, State.TIMEOUT},
                error=facts_error(facts),
            )

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


def facts_error(facts: Any) -> str | None:
    """Return the code of the error that an event carries."""
    return getattr(facts, "error_code", None)
