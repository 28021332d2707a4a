"""What a caller asks for: commands, and the checked rows that are sent for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple
from uuid import UUID

from runfold.ledger.arguments import (
    Target,
    as_digits,
    check_approvals,
    check_sha256,
    check_state,
    check_version,
    check_wait_outcome,
    holder_of,
    identify,
)
from runfold.ledger.errors import InvalidValue
from runfold.ledger.events import CATALOGUE
from runfold.ledger.lifecycle import WAITING, State
from runfold.ledger.payload import PayloadRules, encode_payload
from runfold.ledger.run import Lease
from runfold.ledger.validation import (
    MAX_INT,
    check_correction,
    check_cost,
    check_duration,
    check_instant,
    check_int,
    check_reason,
    check_run_id,
    check_text,
    check_trimmed,
)

MAX_TAGS: Final = 50
MAX_PRIORITY: Final = MAX_INT - 1
"""A claim looks for priorities below the greatest number."""


class SubmitRow(NamedTuple):
    """The columns of `ledger.submit` after project and actor."""

    kind: str
    body: str | None
    key: str | None
    priority: int
    delay: timedelta | None
    max_attempts: int
    deadline_at: datetime | None
    deadline_in: timedelta | None
    tags: str | None
    """An array literal: a column of arrays has no other form."""


class TransitionRow(NamedTuple):
    """The columns of `ledger.transition` after the project."""

    actor: str | None
    """None for the holder of the lease."""
    run_id: UUID
    token: int | None
    to_state: str
    park: bool | None
    name: str | None
    error_code: str | None
    body: str | None
    cost: str | None
    steps: int | None
    output_sha256: bytes | None
    wait: timedelta | None
    wait_outcome: str | None
    expected_version: int | None
    key: str | None
    worker: str | None
    """The holder that its lease names; None without a lease."""


@dataclass(slots=True, kw_only=True)
class Submit:
    """Ask for a run; the parameters are those of `Ledger.submit`."""

    kind: str
    input: Any = None
    key: str | None = None
    priority: int = 0
    delay: float | timedelta | None = None
    max_attempts: int = 3
    deadline: datetime | float | timedelta | None = None
    tags: Sequence[str] = ()
    parent: UUID | str | None = None

    def row(self, rules: PayloadRules) -> SubmitRow:
        """Return the checked row; raise InvalidValue or PayloadTooLarge."""
        at, within = (None, None) if self.deadline is None else _deadline(self.deadline)
        content = {"input": self.input}
        if self.parent is not None:
            content["parent"] = str(check_run_id(self.parent))
        return SubmitRow(  # by place: by name costs as much as all the checks
            check_trimmed("kind", self.kind),
            encode_payload(content, rules),
            None if self.key is None else check_text("key", self.key),
            check_int("priority", self.priority, least=0, most=MAX_PRIORITY),
            None if self.delay is None else check_duration("delay", self.delay),
            check_int("max_attempts", self.max_attempts, least=1, most=1_000),
            at,
            within,
            None if self.tags == () else _array_literal(self.tags),
        )


@dataclass(slots=True)
class Transition:
    """Ask for a move of one run; the parameters are those of `Ledger.transition`."""

    run: Target
    to_state: State | str
    park: bool = field(default=False, kw_only=True)
    name: str | None = field(default=None, kw_only=True)
    error_code: str | None = field(default=None, kw_only=True)
    error_detail: Any = field(default=None, kw_only=True)
    output: Any = field(default=None, kw_only=True)
    output_sha256: str | bytes | None = field(default=None, kw_only=True)
    cost_usd_delta: float | Decimal = field(default=0, kw_only=True)
    step_count_delta: int = field(default=0, kw_only=True)
    reason: str | None = field(default=None, kw_only=True)
    content: Mapping[str, Any] | None = field(default=None, kw_only=True)
    wait: float | timedelta | None = field(default=None, kw_only=True)
    wait_outcome: State | str = field(default=State.CANCELLED, kw_only=True)
    expected_version: int | None = field(default=None, kw_only=True)
    key: str | None = field(default=None, kw_only=True)

    def row(self, rules: PayloadRules, *, actor: str | None = None) -> TransitionRow:
        """Return the checked row; raise InvalidValue or PayloadTooLarge.

        `actor` None is the holder of the lease.
        """
        run_id, token = identify(self.run)
        state = check_state(self.to_state)
        if self.park or self.wait is not None or self.wait_outcome is not State.CANCELLED:
            self._check_waiting(state)
        cost = check_cost("cost_usd_delta", self.cost_usd_delta)
        steps = check_int("step_count_delta", self.step_count_delta, least=-MAX_INT)
        check_correction(token, "cost_usd_delta", cost)
        check_correction(token, "step_count_delta", steps)
        return TransitionRow(  # by place: by name costs as much as all the checks
            actor,
            run_id,
            token,
            str(state),
            self.park or None,
            None if self.name is None else check_text("name", self.name),
            None if self.error_code is None else check_text("error_code", self.error_code),
            encode_payload(self._content(state), rules),
            as_digits(cost) if cost else None,
            steps or None,
            None if self.output_sha256 is None else check_sha256(self.output_sha256),
            None if self.wait is None else check_duration("wait", self.wait, positive=True),
            str(self.wait_outcome) if state is State.WAITING_APPROVAL else None,
            check_version(self.expected_version),
            None if self.key is None else check_text("key", self.key),
            holder_of(self.run),
        )

    def _content(self, state: State) -> dict[str, Any]:
        content: dict[str, Any] = {
            "error_detail": self.error_detail,
            "output": self.output,
            "reason": check_reason(self.reason),
        }
        if self.content:
            content.update(_allowed_content(state, self.content))
        return content

    def _check_waiting(self, state: State) -> None:
        if self.park and state not in WAITING:
            raise InvalidValue(
                "park", self.park, f"only a waiting run can be parked, not one that becomes {state}"
            )
        if (
            self.wait is not None
            and state != State.WAITING_APPROVAL
            and not (state == State.WAITING_TOOL and self.park)
        ):
            raise InvalidValue(
                "wait",
                self.wait,
                "only a wait for an approval, or for a tool while parked, may have an end",
            )
        check_wait_outcome("wait_outcome", self.wait_outcome)


def closing_row(
    lease: Lease,
    state: State,
    content: Mapping[str, Any],
    rules: PayloadRules,
    *,
    error_code: str | None,
    cost: Decimal,
    steps: int,
) -> TransitionRow:
    """Return the row of a Transition that ends a run under a lease as `claim` returned it.

    A worker makes one for every run, at a third of the price. Raises InvalidValue or
    PayloadTooLarge for the parts that the handler chose.
    """
    cost = check_cost("cost_usd_delta", cost)
    return TransitionRow(
        None,
        lease.run_id,
        lease.token,
        state.value,
        None,
        None,
        None if error_code is None else check_text("error_code", error_code),
        encode_payload(content, rules),
        as_digits(cost) if cost else None,
        check_int("step_count_delta", steps, least=-MAX_INT) or None,
        None,
        None,
        None,
        None,
        None,
        lease.worker_id,
    )


_CONTENT: Final = {
    State.WAITING_TOOL: CATALOGUE["tool.requested"].content_fields(),
    State.WAITING_APPROVAL: CATALOGUE["approval.requested"].content_fields(),
}


# The ledger itself reads these in an approval: `other_person` 1 would keep nobody from deciding.
_CONTENT_TYPES: Final = {
    "prompt": (str, "must be text"),
    "role": (str, "must be text"),
    "other_person": (bool, "must be True or False"),
    "shown_sha256": (str, "must be the hex digits of a digest"),
    "based_on": (int, "must be a version of the run"),
    "approvals": (int, "must be a whole number"),
}


def _allowed_content(state: State, content: Mapping[str, Any]) -> Mapping[str, Any]:
    allowed = _CONTENT.get(state, frozenset())
    if not isinstance(content, Mapping):
        raise InvalidValue("content", content, "must be a mapping of names to JSON")
    for name in content:
        if name not in allowed:
            known = ", ".join(sorted(allowed)) or "nothing"
            raise InvalidValue("content", name, f"a move to {state} may carry {known}")
    for name, (type_, remedy) in _CONTENT_TYPES.items():
        value = content.get(name)
        if value is not None and not (
            isinstance(value, type_) and isinstance(value, bool) == (type_ is bool)
        ):
            raise InvalidValue(name, value, remedy)
    if content.get("role") is not None:
        check_text("role", content["role"])
    if content.get("approvals") is not None:
        check_approvals(content["approvals"])
    return content


def _deadline(
    value: datetime | float | timedelta,
) -> tuple[datetime | None, timedelta | None]:
    if isinstance(value, datetime):
        return check_instant("deadline", value), None
    return None, check_duration("deadline", value, positive=True)


def _array_literal(tags: Sequence[str]) -> str | None:
    if isinstance(tags, str) or not isinstance(tags, Sequence):
        raise InvalidValue("tags", tags, "must be a list of texts")
    if len(tags) > MAX_TAGS:
        raise InvalidValue("tags", len(tags), f"at most {MAX_TAGS} to a run")
    if not tags:
        return None
    quoted = (check_text("tag", tag).replace("\\", "\\\\").replace('"', '\\"') for tag in tags)
    return "{" + ",".join(f'"{tag}"' for tag in quoted) + "}"


def check_commands(commands: object, example: str) -> None:
    """Raise InvalidValue, with the example as a remedy, unless this is a list of commands."""
    if not isinstance(commands, Iterable) or isinstance(commands, Mapping | str | bytes):
        raise InvalidValue("commands", commands, f"must be a list: {example}")
