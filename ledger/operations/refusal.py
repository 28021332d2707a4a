"""Refusal: why a command was not kept. The statement is `ledger/sql/operations/refuse.sql`.

A write that succeeds is one round trip; a second query, made only after one that did not, explains
it and records the refusal of a late worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final, NamedTuple
from uuid import UUID

from runfold.ledger import log, names
from runfold.ledger.errors import (
    AttemptsExhausted,
    IllegalTransition,
    InvalidValue,
    LeaseLost,
    LeaseRequired,
    LedgerError,
    RunNotFound,
    VersionConflict,
)
from runfold.ledger.lifecycle import EDGES, TERMINAL, State
from runfold.ledger.operations.columns import columns
from runfold.ledger.postgres.connections import Connection, Pool, fetch
from runfold.ledger.validation import MAX_INT

REFUSE: Final = "SELECT * FROM ledger.refuse($1, $2, $3, $4, $5, $6)"
MAX_TOTAL: Final = 999_999_999_999


class Refused(NamedTuple):
    """A run as it is after a command on it was not kept; the columns of `ledger.refuse`."""

    run_id: UUID
    given_token: int | None
    refused: bool
    """The given token is not the current lease."""
    state: str
    version: int
    token: int | None
    worker_id: str | None
    lease_until: datetime | None
    available_at: datetime | None
    attempt_count: int
    max_attempts: int
    cost_usd: Decimal
    step_count: int


async def look(
    source: Pool | Connection,
    project_id: str,
    actor: str,
    name: str,
    runs: Sequence[tuple[UUID, int | None, str | None]],
) -> dict[UUID, Refused]:
    """Return what the runs are now; record `write.refused` for each token that is not current.

    `name` is the operation that was refused; each run has the token and the worker of its lease,
    if it was named by one.
    """
    if not runs:
        return {}
    rows = await fetch(source, REFUSE, project_id, actor, name, *columns(runs))
    return {row["run_id"]: Refused(**row) for row in rows}


def refusal(
    project_id: str,
    run_id: UUID,
    refused: Refused | None,
    to_state: str,
    *,
    expected: int | None = None,
    retry: bool = False,
    cost: str | None = None,
    steps: int | None = None,
) -> LedgerError:
    """Return the error that explains why a command asking for `to_state` was not kept."""
    if refused is None:
        return RunNotFound(run_id, project_id)
    if refused.refused:
        return _lease_lost(project_id, refused, to_state)
    if expected is not None and refused.version != expected:
        return VersionConflict(run_id, expected, refused.version)
    if retry and refused.attempt_count >= refused.max_attempts:
        return AttemptsExhausted(run_id, refused.attempt_count, refused.max_attempts)
    if refused.given_token is None and _awaits_decision(refused):
        reason = "a person decides, with approve or reject (ledger.decide in SQL)"
        return IllegalTransition(run_id, State(refused.state), to_state, reason)
    return _total_out_of_range(refused, cost, steps) or _no_such_edge(refused, to_state)


def _awaits_decision(refused: Refused) -> bool:
    return refused.state == State.WAITING_APPROVAL and refused.available_at is None


def _lease_lost(project_id: str, refused: Refused, to_state: str) -> LeaseLost:
    assert refused.given_token is not None  # else there was nothing to refuse
    log.logger(project_id=project_id).warning(
        names.WRITE_REFUSED,
        run_id=str(refused.run_id),
        token=refused.given_token,
        worker_id=refused.worker_id,
        from_state=refused.state,
        to_state=to_state,
    )
    return LeaseLost(
        refused.run_id, refused.given_token, refused.state, refused.token, refused.worker_id
    )


def _total_out_of_range(
    refused: Refused, cost: str | None, steps: int | None
) -> InvalidValue | None:
    total = refused.cost_usd + Decimal(cost or 0)
    if total < 0:
        return InvalidValue(
            "cost_usd_delta", cost, f"the run's total of {refused.cost_usd} would fall below zero"
        )
    if total > MAX_TOTAL:
        return InvalidValue(
            "cost_usd_delta",
            cost,
            f"the run's total of {refused.cost_usd} would exceed {MAX_TOTAL:,}",
        )
    if not 0 <= refused.step_count + (steps or 0) <= MAX_INT:
        return InvalidValue(
            "step_count_delta",
            steps,
            f"the run's total of {refused.step_count} would fall below zero or exceed {MAX_INT:,}",
        )
    return None


def _no_such_edge(refused: Refused, to_state: str) -> LedgerError:
    run_id, state = refused.run_id, State(refused.state)
    holds = refused.given_token is not None
    if state in TERMINAL:
        return IllegalTransition(run_id, state, to_state, "it has ended; submit a new run instead")
    if not holds and _awaits_answer(refused) and to_state in EDGES[state]:
        reason = "the time for an answer is over; the reaper's next sweep ends the wait"
        return IllegalTransition(run_id, state, to_state, reason)
    needs_lease = refused.token is not None or (state, to_state) == (State.PENDING, State.RUNNING)
    if not holds and needs_lease:
        return LeaseRequired(run_id, state, to_state, refused.worker_id)
    if refused.available_at is not None and state != State.PENDING:
        reason = f"it was answered before and waits for a worker (version {refused.version})"
        return IllegalTransition(run_id, state, to_state, reason)
    if holds and (state, to_state) == (State.WAITING_APPROVAL, State.RUNNING):
        reason = "no lease grants an approval: a person decides, with approve or reject"
        return IllegalTransition(run_id, state, to_state, reason)
    return IllegalTransition(run_id, state, to_state)


def _awaits_answer(refused: Refused) -> bool:
    """Whether somebody without the lease may answer the run's wait."""
    is_parked_for_tool = refused.state == State.WAITING_TOOL and refused.token is None
    return is_parked_for_tool and refused.available_at is None
