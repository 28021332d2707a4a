"""The arguments that operations share: which run, which state, which digest, how many."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Final
from uuid import UUID

from runfold.ledger.errors import InvalidValue
from runfold.ledger.lifecycle import LAPSED, State
from runfold.ledger.run import Lease
from runfold.ledger.validation import MAX_INT, check_int, check_run_id, check_text

MAX_APPROVALS: Final = 10
_STATES: Final = {state.value: state for state in State}
_WAIT_OUTCOMES: Final = frozenset({State.CANCELLED, State.TIMEOUT, LAPSED})

Target = Lease | UUID | str
"""A run: by its lease where one is held, by its id where none is."""


def check_approvals(value: int) -> int:
    """Return how many persons must approve; raise InvalidValue for less than 1 or more than 10."""
    return check_int("approvals", value, least=1, most=MAX_APPROVALS)


def identify(run: Target) -> tuple[UUID, int | None]:
    """Return the run's id, and the token if it is named by a lease. Raises InvalidValue."""
    return identify_lease(run) if isinstance(run, Lease) else (check_run_id(run), None)


def identify_lease(lease: Lease) -> tuple[UUID, int]:
    """Return the lease's run id and token. Raises InvalidValue."""
    return check_run_id(lease.run_id), check_int("token", lease.token, least=-MAX_INT)


def holder_of(run: Target) -> str | None:
    """Return the worker that a lease names; None for a bare run id. Raises InvalidValue."""
    return check_text("worker_id", run.worker_id) if isinstance(run, Lease) else None


def check_lease(value: object) -> Lease:
    """Return the lease; raise InvalidValue for anything else."""
    if not isinstance(value, Lease):
        raise InvalidValue("lease", value, "must be a Lease, as claim() returns it")
    return value


def check_version(value: int | None) -> int | None:
    """Return the version that a caller expects; raise InvalidValue for any other value."""
    return None if value is None else check_int("expected_version", value, least=1)


def check_state(value: object) -> State:
    """Return the state; raise an InvalidValue that lists the states."""
    if not isinstance(value, str) or (state := _STATES.get(value)) is None:
        raise InvalidValue("state", value, f"must be one of {', '.join(State)}")
    return state


def check_states(value: State | str | Iterable[State | str]) -> list[State]:
    """Return one state or several as a list; raise InvalidValue for anything else."""
    if isinstance(value, str):
        return [check_state(value)]
    if not isinstance(value, Iterable):
        raise InvalidValue("state", value, "must be a state or a list of states")
    return [check_state(each) for each in value]


def check_sha256(value: str | bytes | None) -> bytes | None:
    """Return a SHA-256 digest as 32 bytes; raise InvalidValue for anything else."""
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


def as_digits(cost: Decimal) -> str:
    """Return an amount as text, which is sent five times as fast as a Decimal."""
    return str(cost)


def check_wait_outcome(name: str, value: object) -> str:
    """Return what becomes of an undecided approval; raise InvalidValue for anything else."""
    if not isinstance(value, str) or value not in _WAIT_OUTCOMES:
        raise InvalidValue(name, value, "must be cancelled, timeout or lapsed")
    return value
