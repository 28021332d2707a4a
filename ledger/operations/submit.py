"""Submit: ask for runs. The statement is `ledger/sql/operations/submit.sql`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from runfold.ledger.commands import Submit, SubmitRow, check_commands
from runfold.ledger.errors import DatabaseRefused, InvalidValue, LedgerError
from runfold.ledger.lifecycle import State
from runfold.ledger.operations.batching import Batcher, characters
from runfold.ledger.operations.columns import columns
from runfold.ledger.operations.project import Project
from runfold.ledger.operations.wakeups import LIMIT_EXCEEDED, WITH_A_WRITE
from runfold.ledger.payload import PayloadRules, decode_payload, payload_member
from runfold.ledger.postgres.connections import Connection, fetch
from runfold.ledger.run import Run, Submission

_SUBMIT: Final = "ledger.submit($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
_NEW: Final = f"{_SUBMIT} AS made"
# A run that a key may name is read in the statement that finds it: one round trip.
_BY_KEY: Final = (
    f"{_SUBMIT} AS submitted CROSS JOIN LATERAL ledger.read_run($1, submitted.run_id) AS made"
)
_ONLY_IDS: Final = f"(SELECT run_id, fresh FROM {_SUBMIT}) AS made"
_NOTHING: Final = Decimal("0.000000")


class Submits:
    """Submits runs of one project; submits made at the same time share a statement."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._batcher = Batcher(self._send, lambda row: characters(row.body))
        self._known_kinds: set[str] = set()
        """The first run of a kind inserts a row that an open transaction may have locked."""

    async def submit(
        self, command: Submit, *, actor: str | None = None, connection: Connection | None = None
    ) -> Run:
        """Make one run; see `Ledger.submit`."""
        row = command.row(self._project.rules)
        source = _NEW if row.key is None else _BY_KEY
        if connection is not None:  # only the caller knows whether its transaction commits
            [made] = await _submitted(self._project, _of(source), [row], actor, connection)
            return _run(self._project.project_id, command, row, made)
        if command.key is None and actor is None and command.kind in self._known_kinds:
            made = await self._batcher.ask(row, distinct=object())
            return _new_run(self._project.project_id, command, row, made)
        # It may block on another transaction, so it is sent alone.
        [made] = await _send_and_wake(self._project, source, [row], actor)
        self._known_kinds.add(row.kind)
        return _run(self._project.project_id, command, row, made)

    async def _send(self, rows: Sequence[SubmitRow]) -> Sequence[Mapping[str, Any]]:
        return await _send_and_wake(self._project, _NEW, rows, None)


def _run(project_id: str, command: Submit, row: SubmitRow, made: Mapping[str, Any]) -> Run:
    return Run.from_row(made) if row.key else _new_run(project_id, command, row, made)


def _new_run(project_id: str, command: Submit, row: SubmitRow, made: Mapping[str, Any]) -> Run:
    """Return a new run, put together from its command and the row that the database returned.

    To read the row again costs more than a third of a submit.
    """
    recorded_at = made["recorded_at"]
    return Run(
        run_id=made["run_id"],
        project_id=project_id,
        kind=row.kind,
        state=State.PENDING,
        version=1,
        attempt_count=0,
        max_attempts=row.max_attempts,
        priority=row.priority,
        worker_id=None,
        token=None,
        lease_until=None,
        heartbeat_at=None,
        available_at=made["available_at"],
        started_at=None,
        completed_at=None,
        created_at=recorded_at,
        updated_at=recorded_at,
        deadline=made["deadline"],
        wait_until=None,
        approvals=None,
        approved=None,
        cancel_requested_at=None,
        cost_usd=_NOTHING,
        step_count=0,
        error_code=None,
        error_detail=None,
        input=payload_member(decode_payload(row.body), "input"),
        output=None,
        output_sha256=None,
        tags=tuple(command.tags),
        key=None,
        hash=made["hash"],
    )


async def submit_many(
    project: Project,
    commands: Iterable[Submit | Mapping[str, Any]],
    *,
    actor: str | None,
    connection: Connection | None,
) -> list[Submission]:
    """Make runs, all or none; see `Ledger.submit_many`."""
    check_commands(commands, "submit_many([Submit(...)])")
    rows = [_row(number, command, project.rules) for number, command in enumerate(commands, 1)]
    if not rows:
        return []
    if connection is None:
        submitted = await _send_and_wake(project, _ONLY_IDS, rows, actor)
    else:  # only the caller knows whether its transaction commits
        submitted = await _submitted(project, _of(_ONLY_IDS), rows, actor, connection)
    return [Submission(row["run_id"], row["fresh"]) for row in submitted]


async def _send_and_wake(
    project: Project, source: str, rows: Sequence[SubmitRow], actor: str | None
) -> Sequence[Mapping[str, Any]]:
    if project.waker.goes_with_write():
        try:
            return await _submitted(project, _of(source, WITH_A_WRITE), rows, actor, None)
        except DatabaseRefused as error:  # the queue of NOTIFY may be full: nothing was written
            if error.sqlstate != LIMIT_EXCEEDED:
                raise
    made = await _submitted(project, _of(source), rows, actor, None)
    project.waker.wake()
    return made


async def _submitted(
    project: Project,
    sql: str,
    rows: Sequence[SubmitRow],
    actor: str | None,
    connection: Connection | None,
) -> Sequence[Mapping[str, Any]]:
    who = project.actor_or_default(actor)
    source = project.pool if connection is None else connection
    return await fetch(source, sql, project.project_id, who, *columns(rows))


def _of(source: str, *more: str) -> str:
    return f"SELECT {', '.join(['made.*', *more])} FROM {source}"


def _row(number: int, command: Submit | Mapping[str, Any], rules: PayloadRules) -> SubmitRow:
    try:
        return _as_submit(command).row(rules)
    except LedgerError as error:  # which of many is not accepted
        error.args = (f"command {number}: {error}",)
        raise


def _as_submit(command: Submit | Mapping[str, Any]) -> Submit:
    if isinstance(command, Submit):
        return command
    if not isinstance(command, Mapping):
        raise InvalidValue("command", command, "must be a Submit or the mapping of its parameters")
    try:
        return Submit(**command)
    except TypeError as error:
        raise InvalidValue(
            "command", command, f"must be a Submit or the mapping of its parameters: {error}"
        ) from None
