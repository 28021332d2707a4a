"""Submit: ask for runs. The statement is `ledger/sql/operations/submit.sql`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from runfold.ledger.commands import Submit, SubmitRow, check_commands
from runfold.ledger.errors import InvalidValue
from runfold.ledger.operations.batching import Batcher, characters
from runfold.ledger.operations.columns import columns
from runfold.ledger.operations.project import Project
from runfold.ledger.postgres.connections import Connection, fetch
from runfold.ledger.postgres.partitions import with_partition
from runfold.ledger.run import Run, Submission

_SUBMIT: Final = "ledger.submit($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
# The run is read in the statement that makes it: one round trip.
SUBMIT_AND_READ: Final = (
    f"SELECT r.* FROM {_SUBMIT} AS t CROSS JOIN LATERAL ledger.read_run($1, t.run_id) AS r"
)
SUBMIT_MANY: Final = f"SELECT run_id, fresh FROM {_SUBMIT}"


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
        row = command.row(self._project.limit_bytes)
        if connection is not None:  # whether its transaction commits is the caller's to know
            return await submit_alone(self._project, row, actor, connection)
        if command.key is None and actor is None and row.kind in self._known_kinds:
            run = Run.from_row(await self._batcher.ask(row, distinct=object()))
        else:  # it may block on another transaction, so it is sent alone
            run = await submit_alone(self._project, row, actor)
            self._known_kinds.add(row.kind)
        self._project.waker.wake()
        return run

    async def _send(self, rows: Sequence[SubmitRow]) -> Sequence[Mapping[str, Any]]:
        return await _submitted(self._project, rows, None, None)


async def submit_alone(
    project: Project,
    row: SubmitRow,
    actor: str | None = None,
    connection: Connection | None = None,
) -> Run:
    """Make one run in a statement of its own; wakes nobody."""
    [submitted] = await _submitted(project, [row], actor, connection)
    return Run.from_row(submitted)


async def submit_many(
    project: Project,
    commands: Iterable[Submit | Mapping[str, Any]],
    *,
    actor: str | None,
    connection: Connection | None,
) -> list[Submission]:
    """Make runs, all or none; see `Ledger.submit_many`."""
    check_commands(commands, "submit_many([Submit(...)])")
    rows = [_as_submit(command).row(project.limit_bytes) for command in commands]
    if not rows:
        return []
    arrays = columns(rows)
    who = project.actor_or_default(actor)
    submitted = await _sent(project, connection, SUBMIT_MANY, project.project_id, who, *arrays)
    if connection is None:
        project.waker.wake()
    return [Submission(row["run_id"], row["fresh"]) for row in submitted]


async def _submitted(
    project: Project,
    rows: Sequence[SubmitRow],
    actor: str | None,
    connection: Connection | None,
) -> Sequence[Mapping[str, Any]]:
    who = project.actor_or_default(actor)
    arrays = columns(rows)
    return await _sent(project, connection, SUBMIT_AND_READ, project.project_id, who, *arrays)


async def _sent(
    project: Project, connection: Connection | None, sql: str, *args: object
) -> Sequence[Mapping[str, Any]]:
    if connection is not None:  # a failed statement ends the caller's transaction
        return await project.months.joining(connection, lambda: fetch(connection, sql, *args))
    return await with_partition(project.pool, lambda: fetch(project.pool, sql, *args))


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
