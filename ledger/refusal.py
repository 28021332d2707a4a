"""Why a command was not kept: the second query, turned into a typed error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from ledger import log
from ledger.errors import (
    AttemptsExhausted,
    IllegalTransition,
    InvalidValue,
    LeaseLost,
    LeaseRequired,
    LedgerError,
    RunNotFound,
    VersionConflict,
)
from ledger.lifecycle import TERMINAL, State


def refusal(
    project_id: str,
    run_id: UUID,
    row: Mapping[str, Any] | None,
    to_state: str,
    *,
    expected: int | None = None,
    retry: bool = False,
    cost: Any = None,
    steps: int | None = None,
) -> LedgerError:
    """Explain with `row`, what ledger.refuse says of the run now, why a command asking for `to_state` was not kept."""
    if row is None:
        return RunNotFound(run_id, project_id)
    if row["refused"]:
        log.logger(project_id=project_id).warning(
            log.WRITE_REFUSED, run_id=str(run_id), worker_id=row["worker_id"], from_state=row["state"], to_state=to_state
        )
        return LeaseLost(run_id, row["given_token"], row["state"], row["token"], row["worker_id"])
    if expected is not None and row["version"] != expected:
        return VersionConflict(run_id, expected, row["version"])
    if retry and row["attempt_count"] >= row["max_attempts"]:
        return AttemptsExhausted(run_id, row["attempt_count"], row["max_attempts"])
    if row["cost_usd"] + (cost or 0) < 0:
        return InvalidValue("cost_usd_delta", str(cost), f"the run's total of {row['cost_usd']} would fall below zero")
    if row["step_count"] + (steps or 0) < 0:
        return InvalidValue("step_count_delta", steps, f"the run's total of {row['step_count']} would fall below zero")
    return _no_such_edge(run_id, row, to_state)


def _no_such_edge(run_id: UUID, row: Mapping[str, Any], to_state: str) -> LedgerError:
    state, holds = row["state"], row["given_token"] is not None
    if state in TERMINAL:
        return IllegalTransition(run_id, state, to_state, "it has ended; submit a new run instead")
    needs_lease = row["token"] is not None or (state == State.PENDING and to_state == State.RUNNING)
    if not holds and needs_lease:
        return LeaseRequired(run_id, state, to_state, row["worker_id"])
    if row["available_at"] is not None and state != State.PENDING:
        return IllegalTransition(run_id, state, to_state, f"it was answered before and waits for a worker (version {row['version']})")
    return IllegalTransition(run_id, state, to_state)
