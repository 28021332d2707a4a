"""Transition: move runs along legal edges.

The statement is `ledger/sql/operations/transition.sql`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple
from uuid import UUID

from runfold.ledger import log, names
from runfold.ledger.arguments import Target
from runfold.ledger.commands import Transition, TransitionRow, check_commands
from runfold.ledger.errors import LedgerError
from runfold.ledger.operations.batching import Batcher, characters
from runfold.ledger.operations.closing import Ending, closings
from runfold.ledger.operations.columns import check_distinct, columns
from runfold.ledger.operations.keys import CommandRow, first_outcomes, run_after, unless_raced
from runfold.ledger.operations.project import Project
from runfold.ledger.operations.refusal import Refused, look, refusal
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.run import Lease, Receipt, Run

_TRANSITION: Final = (
    "ledger.transition($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::text[]::numeric[], $11,"
    " $12, $13, $14, $15, $16, $17)"
)
# The run is read in the statement that moves it: one round trip.
TRANSITION_AND_READ: Final = (
    f"SELECT run.*, moved.from_state FROM {_TRANSITION} AS moved"
    " CROSS JOIN LATERAL ledger.read_run($1, moved.run_id) AS run"
)
TRANSITION_MANY: Final = f"SELECT * FROM {_TRANSITION}"


class Move(NamedTuple):
    """A checked transition: the run as its caller named it, and the command's row."""

    run: Target
    row: TransitionRow


class Transitions:
    """Moves the runs of one project; moves made at the same time share a statement."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._batcher = Batcher(self._send, lambda row: characters(row.body))

    async def transition(self, command: Transition, *, actor: str | None = None) -> Run:
        """Move one run and return it; see `Ledger.transition`."""
        row = self._row(command, actor)
        if row.key is None:
            moved = await self._batcher.ask(row, distinct=row.run_id)
        else:  # an open transaction may hold its key, so it is sent alone
            [moved] = await unless_raced(lambda: self._send([row]), row.key)
        move = Move(command.run, row)
        if moved is None:
            return await self._first_run(move, actor)
        run = Run.from_row(moved)
        _log_move(self._project.log(), move, moved["from_state"])
        if run.available_at is not None:  # it was parked, and has its answer
            self._project.waker.wake()
        return run

    async def transition_many(
        self, commands: Sequence[Transition], *, actor: str | None = None
    ) -> list[Receipt | LedgerError]:
        """Move many runs; see `Ledger.transition_many`."""
        check_commands(commands, "transition_many([Transition(...)])")
        moves = [Move(command.run, self._row(command, actor)) for command in commands]
        return await self.move(moves, actor=actor)

    async def move(
        self, moves: Sequence[Move], *, actor: str | None = None
    ) -> list[Receipt | LedgerError]:
        """Move many runs in one statement; each result is a receipt or the error of that move."""
        if not moves:
            return []
        keys = [move.row.key for move in moves if move.row.key is not None]
        check_distinct("run", [move.row.run_id for move in moves])
        check_distinct("key", keys)
        arrays = columns([move.row for move in moves])
        project = self._project
        moved = await unless_raced(
            lambda: fetch(project.pool, TRANSITION_MANY, project.project_id, *arrays), *keys
        )
        outcomes: dict[UUID, Receipt | LedgerError] = {
            row["run_id"]: Receipt(row["run_id"], row["version"], row["hash"]) for row in moved
        }
        _log_moves(project.log(), moves, moved)
        if missing := [move for move in moves if move.row.run_id not in outcomes]:
            outcomes |= await self._explained(missing, actor)
        return [outcomes[move.row.run_id] for move in moves]

    def _row(self, command: Transition, actor: str | None) -> TransitionRow:
        named = self._project.named_actor(command.run, actor)
        return command.row(self._project.rules, actor=named)

    async def _send(self, rows: Sequence[TransitionRow]) -> list[Mapping[str, Any] | None]:
        project = self._project
        moved = await fetch(project.pool, TRANSITION_AND_READ, project.project_id, *columns(rows))
        by_run = {row["run_id"]: row for row in moved}
        return [by_run.get(row.run_id) for row in rows]

    async def _first_run(self, move: Move, actor: str | None) -> Run:
        """Return the run after the first use of the key; raise the error if there is none."""
        outcome = (await self._explained([move], actor))[move.row.run_id]
        if isinstance(outcome, LedgerError):
            raise outcome
        project = self._project
        return await run_after(project.pool, project.project_id, outcome)

    async def _explained(
        self, moves: Sequence[Move], actor: str | None
    ) -> dict[UUID, Receipt | LedgerError]:
        """For each move that was not kept, the first outcome under its key or the error."""
        project = self._project
        rows = [move.row for move in moves]
        first = await first_outcomes(
            project.pool, project.project_id, [_command(row, row.key) for row in rows if row.key]
        )
        outcomes: dict[UUID, Receipt | LedgerError] = {
            row.run_id: first[row.key] for row in rows if row.key in first
        }
        outcomes |= await self._first_endings([row for row in rows if row.run_id not in outcomes])
        actors = {
            move.row.run_id: project.actor_of(move.run, actor)
            for move in moves
            if move.row.run_id not in outcomes
        }
        refused: dict[UUID, Refused] = {}
        for who in set(actors.values()):
            late = [
                (row.run_id, row.token, row.worker) for row in rows if actors.get(row.run_id) == who
            ]
            refused |= await look(project.pool, project.project_id, who, "transition", late)
        for row in rows:
            if row.run_id in actors:
                outcomes[row.run_id] = self._refusal(row, refused.get(row.run_id))
        return outcomes

    async def _first_endings(self, rows: Sequence[TransitionRow]) -> dict[UUID, Receipt]:
        """Return the outcomes of the leases that these rows, sent before, have ended already."""
        leases = [(row.run_id, row.token) for row in rows if row.token is not None]
        closed = await closings(self._project.pool, self._project.project_id, leases)
        return {
            row.run_id: closed[row.run_id].receipt
            for row in rows
            if row.run_id in closed and closed[row.run_id].ending == _ending(row)
        }

    def _refusal(self, row: TransitionRow, refused: Refused | None) -> LedgerError:
        return refusal(
            self._project.project_id,
            row.run_id,
            refused,
            row.to_state,
            expected=row.expected_version,
            cost=row.cost,
            steps=row.steps,
        )


def _command(row: TransitionRow, key: str) -> CommandRow:
    return CommandRow(
        run_id=row.run_id,
        what=row.to_state,
        key=key,
        park=row.park,
        name=row.name,
        error_code=row.error_code,
        body=row.body,
        cost=row.cost,
        steps=row.steps,
        output_sha256=row.output_sha256,
        wait=row.wait,
        wait_outcome=row.wait_outcome,
    )


def _ending(row: TransitionRow) -> Ending:
    return Ending(
        what=row.to_state,
        error_code=row.error_code,
        body=row.body,
        cost=Decimal(row.cost or 0),
        steps=row.steps or 0,
        output_sha256=row.output_sha256,
        worker=row.worker,
    )


def _log_moves(logger: Any, moves: Sequence[Move], moved: Sequence[Mapping[str, Any]]) -> None:
    if log.info_is_on(logger):
        by_run = {move.row.run_id: move for move in moves}
        for row in moved:
            _log_move(logger, by_run[row["run_id"]], row["from_state"])


def _log_move(logger: Any, move: Move, from_state: str) -> None:
    holder: dict[str, object] = {}
    if isinstance(move.run, Lease):
        holder = {
            "worker_id": move.run.worker_id,
            "attempt_count": move.run.attempt,
            "max_attempts": move.run.max_attempts,
        }
    logger.info(
        names.STATE_TRANSITION,
        **holder,
        run_id=str(move.row.run_id),
        from_state=from_state,
        to_state=move.row.to_state,
        error_code=move.row.error_code,
    )
