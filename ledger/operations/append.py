"""Append: events that change no state. The statement is `ledger/sql/operations/append.sql`."""

from __future__ import annotations

from typing import Final, NamedTuple
from uuid import UUID

from runfold.ledger.arguments import Target, as_digits, check_version, holder_of, identify
from runfold.ledger.errors import InvalidValue, LedgerError
from runfold.ledger.events import (
    Event,
    NoteAdded,
    SignalReceived,
    StepCompleted,
    StepFailed,
    UserEvent,
    check_user_type,
)
from runfold.ledger.operations.columns import columns
from runfold.ledger.operations.keys import CommandRow, first_outcomes, unless_raced
from runfold.ledger.operations.project import Project
from runfold.ledger.operations.refusal import look, refusal
from runfold.ledger.payload import PayloadRules, encode_payload
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.run import Receipt
from runfold.ledger.validation import MAX_INT, check_correction, check_cost, check_int, check_text

APPEND: Final = (
    "SELECT * FROM ledger.append"
    "($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::text[]::numeric[], $11, $12, $13, $14)"
)


class AppendRow(NamedTuple):
    """The columns of `ledger.append` after project and actor."""

    run_id: UUID
    token: int | None
    type: str
    schema_version: int
    name: str | None
    error_code: str | None
    body: str | None
    cost: str | None
    steps: int | None
    expected_version: int | None
    key: str | None
    worker: str | None
    """The holder that its lease names; None without a lease."""


async def append(
    project: Project,
    run: Target,
    event: Event,
    *,
    actor: str | None = None,
    expected_version: int | None = None,
    key: str | None = None,
) -> Receipt:
    """Append one event; see `Ledger.append`."""
    row = append_row(run, event, project.rules, expected_version, key)
    who, named = project.actor_of(run, actor), project.named_actor(run, actor)
    arrays = columns([row])
    rows = await unless_raced(
        lambda: fetch(project.pool, APPEND, project.project_id, named, *arrays), key
    )
    if rows:
        return Receipt(rows[0]["run_id"], rows[0]["version"], rows[0]["hash"])
    if row.key is not None:
        first = await first_outcomes(project.pool, project.project_id, [_command(row, row.key)])
        if (outcome := first.get(row.key)) is not None:
            if isinstance(outcome, LedgerError):
                raise outcome
            return outcome
    late = [(row.run_id, row.token, row.worker)]
    refusals = await look(project.pool, project.project_id, who, row.type, late)
    raise refusal(
        project.project_id,
        row.run_id,
        refusals.get(row.run_id),
        row.type,
        expected=row.expected_version,
        cost=row.cost,
        steps=row.steps,
    )


def append_row(
    run: Target,
    event: Event,
    rules: PayloadRules,
    expected_version: int | None = None,
    key: str | None = None,
) -> AppendRow:
    """Return the row of an event; raise InvalidValue or PayloadTooLarge."""
    run_id, token = identify(run)
    _check_appendable(event)
    facts = {"cost_usd", "step_count"}
    if not isinstance(event, UserEvent):  # its own fields may have these names
        facts |= {"name", "error_code"}
    values = event.model_dump(include=facts)
    name, error_code = values.get("name"), values.get("error_code")
    cost, steps = values.get("cost_usd"), values.get("step_count")
    cost = None if cost is None else check_cost("cost_usd", cost)
    steps = None if steps is None else check_int("step_count", steps, least=-MAX_INT)
    check_correction(token, "cost_usd", cost)
    check_correction(token, "step_count", steps)
    return AppendRow(
        run_id=run_id,
        token=token,
        type=event.type,
        schema_version=type(event).SCHEMA_VERSION,
        name=None if name is None else check_text("name", name),
        error_code=None if error_code is None else check_text("error_code", error_code),
        body=encode_payload(event.content(), rules),
        cost=None if cost is None else as_digits(cost),
        steps=steps,
        expected_version=check_version(expected_version),
        key=None if key is None else check_text("key", key),
        worker=holder_of(run),
    )


def _check_appendable(event: object) -> None:
    if not isinstance(event, Event):
        raise InvalidValue(
            "event", event, "must be an event, such as NoteAdded or a UserEvent type of your own"
        )
    if isinstance(event, UserEvent):
        check_user_type(event.type)
    elif not isinstance(event, StepCompleted | StepFailed | SignalReceived | NoteAdded):
        raise InvalidValue(
            "event",
            event.type,
            "cannot be appended as such: append notes, steps and your own UserEvent types",
        )


def _command(row: AppendRow, key: str) -> CommandRow:
    return CommandRow(
        run_id=row.run_id,
        what=row.type,
        key=key,
        name=row.name,
        error_code=row.error_code,
        body=row.body,
        cost=row.cost,
        steps=row.steps,
    )
