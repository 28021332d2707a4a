"""The event catalogue: one frozen model per type. It is the storage contract (pure).

A field marked `Content` lives in the erasable payload of the event; every other field is a fact, a
typed column of table `ledger.event` with the same name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Final, Literal, get_args
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter

from runfold.ledger.errors import InvalidValue, UnknownEvent
from runfold.ledger.lifecycle import FIRST, MOVES, RESERVED, State
from runfold.ledger.payload import Unreadable, decode_payload
from runfold.ledger.validation import check_list, check_text

MAX_TYPE_LENGTH: Final = 80
_TYPE: Final = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")


class _ContentMark:
    """Marks a field that is stored in the payload."""


CONTENT: Final = _ContentMark()
Content = Annotated[JsonValue, CONTENT]
"""Any JSON value, kept in the payload; None where the event has none or it was erased."""
ContentText = Annotated[str | None, CONTENT]
"""Text kept in the payload."""
ContentFlag = Annotated[bool | None, CONTENT]
"""Yes or nothing, kept in the payload."""


CATALOGUE: Final[dict[str, type[Event]]] = {}
"""The model of every known event type."""


class Event(BaseModel):
    """One immutable fact about a run, as every event carries it."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        ser_json_bytes="hex",
        val_json_bytes="hex",
        defer_build=True,  # a command that reads no event starts sooner
    )

    SCHEMA_VERSION: ClassVar[int] = 1
    """Raised by a change of meaning, together with an upcaster from the version before."""

    type: str
    project_id: str = ""
    run_id: UUID = UUID(int=0)
    version: int = 0
    position: int = 0
    recorded_at: datetime | None = None
    schema_version: int = 1
    actor: str = ""
    credential: str | None = None
    """What wrote the event: a login of the database, or `token:<id>` of an API token."""
    state: State | None = None
    key: str | None = None
    payload_hash: bytes | None = None
    hash: bytes = b""
    erased: bool = False

    @classmethod
    def content_fields(cls) -> frozenset[str]:
        """Return the names of the fields that are stored in the payload."""
        return frozenset(
            name for name, field in cls.model_fields.items() if CONTENT in field.metadata
        )

    def content(self) -> dict[str, Any]:
        """Return what the payload holds: the content fields that are set."""
        own = type(self).content_fields()
        return {
            k: v for k, v in self.model_dump(mode="json", include=set(own)).items() if v is not None
        }


class RunSubmitted(Event):
    """A run was asked for; it is pending and claimable from `available_at`."""

    type: Literal["run.submitted"] = "run.submitted"
    kind: str
    priority: int
    max_attempts: int
    available_at: datetime
    deadline: datetime | None = None
    tags: tuple[str, ...] = ()
    input: Content = None
    parent: ContentText = None
    """The run that asked for this one."""


class _Leased(Event):
    """The lease as it is after the event; all None when the run is not leased."""

    worker_id: str | None = None
    token: int | None = None
    lease_until: datetime | None = None


class LeaseAcquired(_Leased):
    """A worker holds the run; the version of this event is the fencing token."""

    type: Literal["lease.acquired"] = "lease.acquired"
    attempt: int


class LeaseHeartbeat(Event):
    """The holder is alive; `late_ms` tells how long after the lease's end the beat came."""

    type: Literal["lease.heartbeat"] = "lease.heartbeat"
    token: int
    lease_until: datetime
    late_ms: int | None = None


class LeaseReleased(Event):
    """The holder gave the run back unharmed; the attempt is not charged."""

    type: Literal["lease.released"] = "lease.released"
    attempt: int
    available_at: datetime
    error_code: str | None = None
    """Why its process could not do the run, though another one may."""
    compensates: int
    error_detail: Content = None


class LeaseExpired(Event):
    """The lease passed its end without a heartbeat; the run is pending again.

    `attempt`, where it is given, is the number of attempts without this one, which is not charged.
    """

    type: Literal["lease.expired"] = "lease.expired"
    attempt: int | None = None
    available_at: datetime
    error_code: str
    compensates: int
    error_detail: Content = None


class _Work(Event):
    """A piece of work and its cost."""

    name: str
    token: int | None = None
    cost_usd: Decimal | None = None
    step_count: int | None = None
    beside: ContentFlag = None
    """Asked by a task beside the handler's own, so in no order with the rest."""
    handler_version: ContentText = None
    """The version of the handler that began the run; with the run's first call."""


class StepCompleted(_Work):
    """A step's result, recorded once."""

    type: Literal["step.completed"] = "step.completed"
    output: Content = None


class StepFailed(_Work):
    """A step's error."""

    type: Literal["step.failed"] = "step.failed"
    error_code: str | None = None
    error_detail: Content = None


class _Wait(_Leased):
    """A move into or out of waiting, with what it cost."""

    name: str | None = None
    available_at: datetime | None = None
    cost_usd: Decimal | None = None
    step_count: int | None = None
    output_sha256: bytes | None = None
    error_code: str | None = None
    error_detail: Content = None
    output: Content = None
    reason: ContentText = None
    beside: ContentFlag = None


class ToolRequested(_Wait):
    """The run waits for a tool: held with its lease, or parked until `wait_until`."""

    type: Literal["tool.requested"] = "tool.requested"
    wait_until: datetime | None = None
    input: Content = None
    handler_version: ContentText = None


class ToolCompleted(_Wait):
    """The tool answered."""

    type: Literal["tool.completed"] = "tool.completed"


class ToolFailed(_Wait):
    """The tool answered with an error; the run decides what that means."""

    type: Literal["tool.failed"] = "tool.failed"


class ApprovalRequested(_Wait):
    """The run waits for a person; undecided at `wait_until` it ends as `wait_outcome`.

    That is a state, or `lapsed`: then the run goes on.

    What decides who may decide about what is a fact as well: an erasure leaves `role`,
    `other_person`, `approvals`, `shown_sha256` and `based_on`.
    """

    type: Literal["approval.requested"] = "approval.requested"
    wait_until: datetime | None = None
    wait_outcome: str | None = None
    prompt: ContentText = None
    show: Content = None
    shown_sha256: ContentText = None
    """Digest of exactly what was shown: `runfold.ledger.operations.decide.shown_sha256`."""
    based_on: Annotated[int | None, CONTENT] = None
    """The version of the run that the request was made from."""
    other_person: ContentFlag = None
    """The submitter of the run may not decide."""
    role: ContentText = None
    """Only members of this role may decide."""
    approvals: Annotated[int | None, CONTENT] = None
    """How many persons must say yes; None: one."""
    approved: int | None = None
    """How many have, where more than one must: none yet."""
    handler_version: ContentText = None


class _Approved(Event):
    """A person's yes: about which request, what it stands for, and which of how many it is."""

    request: int | None = None
    """The version of the event that asked."""
    shown_sha256: str | None = None
    """The digest of what the request showed."""
    meaning: str | None = None
    """What the decision stands for: approved, reviewed ..."""
    approvals: int | None = None
    """How many persons must say yes; None: one."""
    approved: int | None = None
    """How many have said it, this one included."""


class ApprovalSigned(_Leased, _Approved):
    """A person said yes, and others must: the run goes on waiting, as it did."""

    type: Literal["approval.signed"] = "approval.signed"
    wait_until: datetime | None = None
    wait_outcome: str | None = None
    output: Content = None
    reason: ContentText = None


class ApprovalGranted(_Wait, _Approved):
    """A person said yes, the last of those who must."""

    type: Literal["approval.granted"] = "approval.granted"


class ApprovalLapsed(_Wait):
    """Nobody decided in time, and the run goes on: its handler decides what that means."""

    type: Literal["approval.lapsed"] = "approval.lapsed"


class _Ended(Event):
    """An end of the run, with what the last piece of work cost."""

    name: str | None = None
    cost_usd: Decimal | None = None
    step_count: int | None = None
    output_sha256: bytes | None = None
    error_code: str | None = None
    compensates: int | None = None
    error_detail: Content = None
    output: Content = None
    reason: ContentText = None


class ApprovalRejected(_Ended):
    """A person said no; the run is cancelled."""

    type: Literal["approval.rejected"] = "approval.rejected"
    request: int | None = None
    """The version of the event that asked."""
    shown_sha256: str | None = None
    """The digest of what the request showed."""
    meaning: str | None = None
    """What the decision stands for: rejected, returned ..."""


class ApprovalExpired(_Ended):
    """Nobody decided in time."""

    type: Literal["approval.expired"] = "approval.expired"


class RunCompleted(_Ended):
    """The run reached its goal."""

    type: Literal["run.completed"] = "run.completed"


class RunFailed(_Ended):
    """The run cannot reach its goal."""

    type: Literal["run.failed"] = "run.failed"


class RunCancelled(_Ended):
    """Somebody cancelled the run."""

    type: Literal["run.cancelled"] = "run.cancelled"


class RunTimedOut(_Ended):
    """The run passed its deadline."""

    type: Literal["run.timed_out"] = "run.timed_out"


class RunRetried(Event):
    """An attempt failed and another is allowed; the run is claimable from `available_at`."""

    type: Literal["run.retried"] = "run.retried"
    available_at: datetime
    error_code: str | None = None
    compensates: int
    error_detail: Content = None


class CancelRequested(Event):
    """Somebody asked to cancel a held run; its worker learns of it with the next heartbeat."""

    type: Literal["cancel.requested"] = "cancel.requested"
    reason: ContentText = None


class SignalReceived(Event):
    """A value for the run came before it waits for one of this name; it is kept until then."""

    type: Literal["signal.received"] = "signal.received"
    name: str
    value: Content = None


class WriteRefused(Event):
    """A write under a token that is not current was refused: operation `name`, token `token`."""

    type: Literal["write.refused"] = "write.refused"
    name: str
    token: int
    worker_id: str | None = None


class NoteAdded(Event):
    """A remark; `name` is its sort, for counting. Its cost adds to the run's totals."""

    type: Literal["note.added"] = "note.added"
    name: str | None = None
    token: int | None = None
    cost_usd: Decimal | None = None
    step_count: int | None = None
    text: ContentText = None


class PayloadErased(Event):
    """The payload of event `compensates` was erased on request; its hash stays."""

    type: Literal["payload.erased"] = "payload.erased"
    compensates: int
    reason: ContentText = None


class UserEvent(Event):
    """Base of a user's own event types: subclass it with a `type` literal under your own prefix.

    Every field you add is content. `cost_usd` and `step_count` add to the run's totals.
    """

    cost_usd: Decimal | None = None
    step_count: int | None = None
    data: Content = None

    @classmethod
    def content_fields(cls) -> frozenset[str]:
        """Return the names of the payload's fields: all that the subclass added."""
        return frozenset(cls.model_fields) - (frozenset(UserEvent.model_fields) - {"data"})

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        """Register the subclass under its type, so that histories return it."""
        type_ = cls.model_fields["type"].default
        if isinstance(type_, str):
            CATALOGUE[check_user_type(type_)] = cls


class OpaqueEvent(Event):
    """An event that this code has no model for: its facts and content, as they are stored."""

    facts: dict[str, Any] = Field(default_factory=dict)
    raw: Content = None
    unreadable: str | None = None
    """Why its stored content cannot be read; None where it can."""


BuiltIn = Annotated[
    RunSubmitted
    | LeaseAcquired
    | LeaseHeartbeat
    | LeaseReleased
    | LeaseExpired
    | StepCompleted
    | StepFailed
    | ToolRequested
    | ToolCompleted
    | ToolFailed
    | ApprovalRequested
    | ApprovalSigned
    | ApprovalGranted
    | ApprovalLapsed
    | ApprovalRejected
    | ApprovalExpired
    | RunCompleted
    | RunFailed
    | RunCancelled
    | RunTimedOut
    | RunRetried
    | CancelRequested
    | SignalReceived
    | WriteRefused
    | NoteAdded
    | PayloadErased,
    Field(discriminator="type"),
]
"""Every event type of the ledger itself, told apart by `type`."""

_BUILT_IN: Final[TypeAdapter[Event]] = TypeAdapter(BuiltIn, config=ConfigDict(defer_build=True))
CATALOGUE.update(
    {model.model_fields["type"].default: model for model in get_args(get_args(BuiltIn)[0])}
)
_FACTS: Final = frozenset(name for model in CATALOGUE.values() for name in model.model_fields)


def from_row(facts: Mapping[str, Any], body: str | None) -> Event:
    """Build the event of a stored row: its columns that are not null, and its payload's JSON text.

    Content of an older schema version is upcast. A type, a newer schema version or a field that
    this code does not know becomes an `OpaqueEvent`: reading a history never fails on one event,
    and never hides one. A column that a newer release has added changes nothing: a meaning that
    changes has a newer schema version.
    """
    erased = body is None and "payload_hash" in facts
    content = {} if body is None else decode_payload(body)
    if isinstance(content, Unreadable):
        return _opaque(facts, None, erased=False, unreadable=content.problem)
    model = CATALOGUE.get(facts["type"])
    if model is None or facts["schema_version"] > model.SCHEMA_VERSION:
        return _opaque(facts, content, erased=erased)
    try:
        content = upcast(facts["type"], facts["schema_version"], content, model.SCHEMA_VERSION)
        # A member of a payload must not replace the fact of its name.
        if not content.keys() <= model.content_fields():
            return _opaque(facts, content, erased=erased)
        # A user's field may have the name of a fact that only the ledger uses.
        if issubclass(model, UserEvent):
            own = {name: value for name, value in facts.items() if name in UserEvent.model_fields}
            return model.model_validate({**own, **content, "erased": erased})
        known = {name: value for name, value in facts.items() if name in _FACTS}
        return _BUILT_IN.validate_python({**known, **content, "erased": erased})
    except Exception:
        return _opaque(facts, content, erased=erased)


def _opaque(
    facts: Mapping[str, Any], content: Any, *, erased: bool, unreadable: str | None = None
) -> OpaqueEvent:
    envelope = {k: v for k, v in facts.items() if k in Event.model_fields}
    rest = {k: v for k, v in facts.items() if k not in Event.model_fields}
    return OpaqueEvent(
        **envelope, facts=rest, raw=content or None, erased=erased, unreadable=unreadable
    )


Upcaster = Callable[[dict[str, Any]], dict[str, Any]]
_UPCASTERS: Final[dict[tuple[str, int], Upcaster]] = {}


def upcaster(type_: str, from_version: int) -> Callable[[Upcaster], Upcaster]:
    """Register the pure step from content of `from_version` to content of the next version."""

    def register(step: Upcaster) -> Upcaster:
        _UPCASTERS[type_, from_version] = step
        return step

    return register


def upcast(type_: str, version: int, content: dict[str, Any], wanted: int) -> dict[str, Any]:
    """Bring content from its stored schema version to `wanted`, one registered step at a time.

    Raises UnknownEvent where a step is missing.
    """
    while version < wanted:
        step = _UPCASTERS.get((type_, version))
        if step is None:
            raise UnknownEvent(
                type_, version, f"no upcaster to version {version + 1} is registered"
            )
        content, version = step(content), version + 1
    return content


def check_named_types(field: str, types: Iterable[str]) -> list[str]:
    """Return event types that a filter names; raise InvalidValue for one that no event can have."""
    check_list(field, types, "event types")
    named = list(types)
    for type_ in named:
        check_text(field, type_, limit=MAX_TYPE_LENGTH)
        if not _TYPE.fullmatch(type_):
            raise InvalidValue(field, type_, "is not an event type, such as 'run.failed'")
        prefix = type_.split(".", 1)[0]
        own = sorted(own for own in (*MOVES, FIRST) if own.startswith(f"{prefix}."))
        if prefix in RESERVED and type_ not in own:
            remedy = f"those that begin with '{prefix}.' are: {', '.join(own)}"
            raise InvalidValue(field, type_, f"is not an event type; {remedy}")
    return named


def check_user_type(type_: str) -> str:
    """Return the event type if a user may own it; raise InvalidValue if not."""
    if len(type_) > MAX_TYPE_LENGTH or not _TYPE.fullmatch(type_):
        raise InvalidValue(
            "event type", type_, "use lower-case words joined by dots, such as 'acme.page_read'"
        )
    if type_.split(".", 1)[0] in RESERVED:
        raise InvalidValue(
            "event type", type_, "this prefix belongs to the ledger; use a prefix of your own"
        )
    return type_
