"""Why a command was not kept: the second query, turned into a typed error."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, TypeVar
from uuid import UUID

import asyncpg

from runfold.ledger import log, names
from runfold.ledger.commands import columns
from runfold.ledger.errors import (
    AttemptsExhausted,
    DatabaseRefused,
    DecisionRefused,
    DuplicateKey,
    IllegalTransition,
    InvalidValue,
    LeaseLost,
    LeaseRequired,
    LedgerError,
    RunNotFound,
    VersionConflict,
)
from runfold.ledger.lifecycle import EDGES, TERMINAL, State
from runfold.ledger.operations import calls
from runfold.ledger.postgres.connections import Pool, fetch
from runfold.ledger.run import Receipt
from runfold.ledger.validation import MAX_INT

MAX_TOTAL: Final = 999_999_999_999
UNIQUE_VIOLATION: Final = "23505"
T = TypeVar("T")


class Refusals:
    """Explains, for one project, commands that were not kept; records the refusal of late workers while it does."""

    def __init__(self, pool: Pool | asyncpg.Connection[Any], project_id: str) -> None:
        self._pool, self._project_id = pool, project_id

    async def look(
        self, actor: str, name: str, runs: Sequence[tuple[UUID, int | None]]
    ) -> dict[UUID, Mapping[str, Any]]:
        """Give what the runs look like now; a token that is not current is recorded as `write.refused`."""
        if not runs:
            return {}
        rows = await fetch(self._pool, calls.REFUSE, self._project_id, actor, name, *columns(runs))
        return {row["run_id"]: row for row in rows}

    async def earlier(self, asked: Sequence[tuple[Any, ...]]) -> dict[str, Receipt | DuplicateKey]:
        """Look idempotency keys up: the first outcome of each that was used, or the error if the content differs."""
        if not asked:
            return {}
        rows = await fetch(self._pool, calls.COMMANDS, self._project_id, *columns(asked))
        return {
            row["key"]: Receipt(row["run_id"], row["version"], row["hash"])
            if row["same"]
            else DuplicateKey(row["key"], row["run_id"], row["version"])
            for row in rows
        }

    async def transitions(
        self, rows: Sequence[tuple[Any, ...]], actors: Mapping[UUID, str]
    ) -> list[Receipt | LedgerError]:
        """Give, for each row of `Transition.row` that was not kept, the first outcome under its key or the error."""
        first = await self.earlier([(r[0], *r[2:12], r[13]) for r in rows if r[13] is not None])
        found: dict[UUID, Mapping[str, Any]] = {}
        for actor in set(actors.values()):
            asked = [(r[0], r[1]) for r in rows if r[13] not in first and actors[r[0]] == actor]
            found |= await self.look(actor, "transition", asked)
        return [
            first[r[13]]
            if r[13] in first
            else await self._undecided(r, actors[r[0]], found.get(r[0]))
            or refusal(
                self._project_id, r[0], found.get(r[0]), r[2], expected=r[12], cost=r[7], steps=r[8]
            )
            for r in rows
        ]

    async def _undecided(
        self, row: tuple[Any, ...], actor: str, found: Mapping[str, Any] | None
    ) -> DecisionRefused | None:
        """Give the error of a decision that is somebody else's, if that is what was asked for."""
        if (
            found is None
            or found["refused"]
            or found["state"] != State.WAITING_APPROVAL
            or found["available_at"] is not None
        ):
            return None
        [answer] = await fetch(self._pool, calls.MAY_NOT_DECIDE, self._project_id, row[0], actor)
        return None if answer["why"] is None else DecisionRefused(row[0], actor, answer["why"])


async def unless_raced(call: Callable[[], Awaitable[T]], *keys: str | None) -> T:
    """Make a keyed call; once more when a concurrent command with the same key won the race.

    The loser wrote nothing. The second time the key is taken, so what the winner did is looked up, never repeated.
    """
    try:
        return await call()
    except DatabaseRefused as error:
        if error.sqlstate != UNIQUE_VIOLATION or not any(keys):
            raise
        return await call()


def refusal(  # noqa: PLR0911  one return for each reason
    project_id: str,
    run_id: UUID,
    row: Mapping[str, Any] | None,
    to_state: str,
    *,
    expected: int | None = None,
    retry: bool = False,
    cost: str | None = None,
    steps: int | None = None,
) -> LedgerError:
    """Explain with `row`, what ledger.refuse says of the run now, why a command asking for `to_state` was not kept."""
    if row is None:
        return RunNotFound(run_id, project_id)
    if row["refused"]:
        log.logger(project_id=project_id).warning(
            names.WRITE_REFUSED,
            run_id=str(run_id),
            token=row["given_token"],
            worker_id=row["worker_id"],
            from_state=row["state"],
            to_state=to_state,
        )
        return LeaseLost(run_id, row["given_token"], row["state"], row["token"], row["worker_id"])
    if expected is not None and row["version"] != expected:
        return VersionConflict(run_id, expected, row["version"])
    if retry and row["attempt_count"] >= row["max_attempts"]:
        return AttemptsExhausted(run_id, row["attempt_count"], row["max_attempts"])
    total = row["cost_usd"] + Decimal(cost or 0)
    if total < 0:
        return InvalidValue(
            "cost_usd_delta", cost, f"the run's total of {row['cost_usd']} would fall below zero"
        )
    if total > MAX_TOTAL:
        return InvalidValue(
            "cost_usd_delta",
            cost,
            f"the run's total of {row['cost_usd']} would exceed {MAX_TOTAL:,}",
        )
    if not 0 <= row["step_count"] + (steps or 0) <= MAX_INT:
        return InvalidValue(
            "step_count_delta",
            steps,
            f"the run's total of {row['step_count']} would fall below zero or exceed {MAX_INT:,}",
        )
    return _no_such_edge(run_id, row, to_state)


def _no_such_edge(run_id: UUID, row: Mapping[str, Any], to_state: str) -> LedgerError:
    state, holds = row["state"], row["given_token"] is not None
    if state in TERMINAL:
        return IllegalTransition(run_id, state, to_state, "it has ended; submit a new run instead")
    may_answer = state == State.WAITING_APPROVAL or (
        state == State.WAITING_TOOL and row["token"] is None
    )
    if not holds and may_answer and row["available_at"] is None and to_state in EDGES[State(state)]:
        reason = "the time for an answer is over; the reaper's next sweep ends the wait"
        return IllegalTransition(run_id, state, to_state, reason)
    needs_lease = row["token"] is not None or (state == State.PENDING and to_state == State.RUNNING)
    if not holds and needs_lease:
        return LeaseRequired(run_id, state, to_state, row["worker_id"])
    if row["available_at"] is not None and state != State.PENDING:
        return IllegalTransition(
            run_id,
            state,
            to_state,
            f"it was answered before and waits for a worker (version {row['version']})",
        )
    return IllegalTransition(run_id, state, to_state)
