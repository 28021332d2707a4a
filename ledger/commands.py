"""What a caller asks for: commands, checked and written as the arrays that the SQL functions take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from runfold.ledger.errors import InvalidValue
from runfold.ledger.events import (
    CATALOGUE,
    Event,
    SignalReceived,
    StepCompleted,
    StepFailed,
    UserEvent,
    check_user_type,
)
from runfold.ledger.lifecycle import WAITING, State
from runfold.ledger.payload import encode_payload
from runfold.ledger.run import Lease
from runfold.ledger.validation import (
    MAX_INT,
    check_cost,
    check_duration,
    check_int,
    check_reason,
    check_run_id,
    check_text,
)

MAX_BATCH: Final = 10_000
MAX_TAGS: Final = 50
MAX_PRIORITY: Final = MAX_INT - 1
"""A claim looks for priorities below the greatest number."""
_FIRST_YEAR: Final = 1970
_LAST_YEAR: Final = 9000

Target = Lease | UUID | str
"""A run: by its lease where one is held, by its id where none is."""


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

    def row(self, limit_bytes: int) -> tuple[Any, ...]:
        """Give the columns of `ledger.submit` after project and actor; raise InvalidValue or PayloadTooLarge."""
        at, within = _deadline(self.deadline)
        return (
            check_text("kind", self.kind),
            encode_payload({"input": self.input, **self._link()}, limit_bytes),
            None if self.key is None else check_text("key", self.key),
            check_int("priority", self.priority, least=0, most=MAX_PRIORITY),
            None if self.delay is None else check_duration("delay", self.delay),
            check_int("max_attempts", self.max_attempts, least=1, most=1_000),
            at,
            within,
            _array_literal(self.tags),
        )

    def _link(self) -> dict[str, str]:
        return {} if self.parent is None else {"parent": str(check_run_id(self.parent))}


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

    def row(self, limit_bytes: int) -> tuple[Any, ...]:
        """Give the columns of `ledger.transition` after project and actor; raise InvalidValue or PayloadTooLarge."""
        run_id, token = identify(self.run)
        state = check_state(self.to_state)
        if self.park or self.wait is not None or self.wait_outcome is not State.CANCELLED:
            self._check_waiting(state)
        content = {
            "error_detail": self.error_detail,
            "output": self.output,
            "reason": check_reason(self.reason),
        }
        if self.content:
            content.update(_allowed_content(state, self.content))
        return (
            run_id,
            token,
            state.value,
            self.park or None,
            None if self.name is None else check_text("name", self.name),
            None if self.error_code is None else check_text("error_code", self.error_code),
            encode_payload(content, limit_bytes),
            _as_text(check_cost("cost_usd_delta", self.cost_usd_delta) or None),
            check_int("step_count_delta", self.step_count_delta, least=-MAX_INT) or None,
            check_sha256(self.output_sha256),
            None if self.wait is None else check_duration("wait", self.wait, positive=True),
            str(self.wait_outcome) if state is State.WAITING_APPROVAL else None,
            check_version(self.expected_version),
            None if self.key is None else check_text("key", self.key),
        )

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
                "only an approval, or a tool whose answer the run is parked for, may be late",
            )
        check_wait_outcome("wait_outcome", self.wait_outcome)


def check_wait_outcome(name: str, value: object) -> str:
    """Give back what becomes of a run that nobody decides on in time; raise InvalidValue for anything else."""
    if not isinstance(value, str) or value not in _WAIT_OUTCOMES:
        raise InvalidValue(name, value, "must be cancelled or timeout")
    return value


_STATES: Final = {state.value: state for state in State}
_WAIT_OUTCOMES: Final = frozenset({State.CANCELLED, State.TIMEOUT})
_CONTENT: Final = {
    State.WAITING_TOOL: CATALOGUE["tool.requested"].content_fields(),
    State.WAITING_APPROVAL: CATALOGUE["approval.requested"].content_fields(),
}


# What the ledger itself reads in an approval must be what it looks for: `other_person` 1 would hold nobody off.
_CONTENT_TYPES: Final = {
    "prompt": (str, "must be text"),
    "role": (str, "must be text"),
    "other_person": (bool, "must be True or False"),
    "shown_sha256": (str, "must be the hex digits of a digest"),
    "based_on": (int, "must be a version of the run"),
}


def _allowed_content(state: State, content: Mapping[str, Any]) -> Mapping[str, Any]:
    allowed = _CONTENT.get(state, frozenset())
    if not isinstance(content, Mapping):
        raise InvalidValue("content", content, "must be a mapping of names to JSON")
    for name in content:
        if name not in allowed:
            known = ", ".join(sorted(allowed)) or "nothing"
            raise InvalidValue("content", name, f"a move to {state} may carry {known}")
    for name, (type_, said) in _CONTENT_TYPES.items():
        value = content.get(name)
        if value is not None and not (
            isinstance(value, type_) and isinstance(value, bool) == (type_ is bool)
        ):
            raise InvalidValue(name, value, said)
    if content.get("role") is not None:
        check_text("role", content["role"])
    return content


def event_row(
    run: Target, event: Event, limit_bytes: int, expected: int | None, key: str | None
) -> tuple[Any, ...]:
    """Give the columns of `ledger.append` after project and actor; raise InvalidValue or PayloadTooLarge."""
    run_id, token = identify(run)
    if not isinstance(event, Event):
        raise InvalidValue(
            "event", event, "must be an event, such as NoteAdded or a UserEvent type of your own"
        )
    if (
        not isinstance(event, UserEvent | StepCompleted | StepFailed | SignalReceived)
        and event.type != "note.added"
    ):
        raise InvalidValue(
            "event",
            event.type,
            "cannot be appended as such: append notes, steps and your own UserEvent types",
        )
    included = {"cost_usd", "step_count"}
    if isinstance(event, UserEvent):
        check_user_type(event.type)
    else:
        included |= {"name", "error_code"}
    facts = event.model_dump(include=included)
    name, error_code, cost, steps = (
        facts.get(f) for f in ("name", "error_code", "cost_usd", "step_count")
    )
    return (
        run_id,
        token,
        event.type,
        type(event).SCHEMA_VERSION,
        None if name is None else check_text("name", name),
        None if error_code is None else check_text("error_code", error_code),
        encode_payload(event.content(), limit_bytes),
        None if cost is None else _as_text(check_cost("cost_usd", cost)),
        None if steps is None else check_int("step_count", steps, least=-MAX_INT),
        check_version(expected),
        None if key is None else check_text("key", key),
    )


def identify(run: Target) -> tuple[UUID, int | None]:
    """Give the run's id, and the token if it is named by a lease."""
    if isinstance(run, Lease):
        return check_run_id(run.run_id), check_int("token", run.token, least=-MAX_INT)
    return check_run_id(run), None


def check_lease(value: object) -> Lease:
    """Give a lease back; raise InvalidValue for anything else."""
    if not isinstance(value, Lease):
        raise InvalidValue("lease", value, "must be a Lease, as claim gives it")
    return value


def check_version(value: int | None) -> int | None:
    """Give the version a caller expects; raise InvalidValue for what can be none."""
    return None if value is None else check_int("expected_version", value, least=1)


def check_state(value: object) -> State:
    """Give the state; raise InvalidValue that lists the states."""
    if not isinstance(value, str) or (state := _STATES.get(value)) is None:
        raise InvalidValue("state", value, f"must be one of {', '.join(State)}")
    return state


def check_kinds(kinds: Sequence[str]) -> list[str]:
    """Give the kinds of a claim, each once; raise InvalidValue for what is no list of kinds."""
    if isinstance(kinds, str) or not isinstance(kinds, Iterable):
        raise InvalidValue("kinds", kinds, "must be a list of kinds")
    return sorted({check_text("kind", kind) for kind in kinds})


def check_sha256(value: str | bytes | None) -> bytes | None:
    """Give a SHA-256 digest as 32 bytes; raise InvalidValue for anything else."""
    if value is None:
        return None
    try:
        digest = bytes.fromhex(value) if isinstance(value, str) else value
    except ValueError:
        digest = b""
    if not isinstance(digest, bytes | bytearray):  # of a number, bytes() would make as many zeros
        digest = b""
    if len(digest) != 32:  # noqa: PLR2004  the size of the digest
        raise InvalidValue("output_sha256", value, "must be 64 hex digits or 32 bytes")
    return bytes(digest)


def columns(rows: Sequence[tuple[Any, ...]]) -> list[Sequence[Any] | None]:
    """Turn rows into the parallel arrays of a SQL function; raise InvalidValue for more than 10,000.

    A column that holds nothing is None: neither side has to spell an array of nulls.
    """
    if len(rows) > MAX_BATCH:
        raise InvalidValue(
            "batch", len(rows), f"a call takes at most {MAX_BATCH:,} commands: split it"
        )
    nothing = (None,) * len(rows)
    return [None if column == nothing else column for column in zip(*rows, strict=True)]


def check_distinct(what: str, given: Sequence[Any]) -> None:
    """Raise InvalidValue when a run or a key is named twice in one call."""
    if len(set(given)) != len(given):
        twice = next(one for one in given if given.count(one) > 1)
        raise InvalidValue(
            what, str(twice), "is named twice in one call: make two calls, in the order you mean"
        )


def _as_text(cost: Decimal | None) -> str | None:
    # The driver takes five times as long to send a Decimal as the server to read its digits.
    return None if cost is None else str(cost)


def _deadline(
    value: datetime | float | timedelta | None,
) -> tuple[datetime | None, timedelta | None]:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise InvalidValue(
                "deadline",
                value.isoformat(),
                "has no time zone: use an aware datetime or a timedelta",
            )
        if (
            not _FIRST_YEAR <= value.year <= _LAST_YEAR
        ):  # the ends of the calendar stand for infinity in the driver
            raise InvalidValue(
                "deadline", value.isoformat(), f"must be in the years {_FIRST_YEAR} to {_LAST_YEAR}"
            )
        return value, None
    return None, None if value is None else check_duration("deadline", value)


def _array_literal(tags: Sequence[str]) -> str | None:
    if isinstance(tags, str) or not isinstance(tags, Sequence):
        raise InvalidValue("tags", tags, "must be a list of texts")
    if len(tags) > MAX_TAGS:
        raise InvalidValue("tags", len(tags), f"at most {MAX_TAGS} to a run")
    if not tags:
        return None
    quoted = (check_text("tag", tag).replace("\\", "\\\\").replace('"', '\\"') for tag in tags)
    return "{" + ",".join(f'"{tag}"' for tag in quoted) + "}"
