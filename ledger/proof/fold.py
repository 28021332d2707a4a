"""The fold of events into the states of their runs, and where stored states differ (pure).

A separate fold for checks: the stored state was folded by the database's trigger, and a check must
not rely on what it checks. Which column follows from which events is compiled from the one
declaration, `projections/state/run_state.py`, as the trigger is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from runfold.ledger.proof.run_state_columns import COLUMNS

_STEPS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "last": lambda old, new: old if new is None else new,
    "first": lambda old, new: new if old is None else old,
    "once": lambda old, new: new if old is None else old,
    "assign": lambda _, new: new,
    "sum": lambda old, new: old + (new or 0),
    "max": lambda old, new: new if old is None else max(old, new),
}
_START: Final = {name: start for name, _, _, _, start in COLUMNS}


@dataclass(frozen=True, slots=True)
class Drift:
    """A run whose row is not the fold of its events.

    `columns` has what differs: its name, what the events say, what is stored. A row that is missing
    has `stored` False and differs in every column; a row without any events has `expected` False.
    """

    run_id: UUID
    columns: Mapping[str, tuple[Any, Any]]
    expected: bool = True
    stored: bool = True

    def __str__(self) -> str:
        if not self.stored:
            return "run_state has no row"
        if not self.expected:
            return "the run has no events"
        return "; ".join(
            f"{name} is {have!r}, its events say {want!r}"
            for name, (want, have) in self.columns.items()
        )


class StateCheck:
    """Takes the events of runs in version order, and then compares the states that are stored."""

    def __init__(self) -> None:
        self._states: dict[UUID, dict[str, Any]] = {}
        self._steps: dict[str, list[_Step]] = {}

    def add(self, event: Mapping[str, Any]) -> None:
        """Fold the next event into the state of its run."""
        run_id, type_ = event["run_id"], event["type"]
        state = self._states.get(run_id)
        if state is None:
            state = self._states[run_id] = dict(_START)
        steps = self._steps.get(type_)
        if steps is None:
            steps = self._steps[type_] = list(_steps_of(type_))
        for name, step, source in steps:
            state[name] = step(state[name], event[source])

    def state(self, run_id: UUID) -> Mapping[str, Any] | None:
        """Return the state that a run's events say; None for a run without events."""
        return self._states.get(run_id)

    def drift(self, stored: Iterable[Mapping[str, Any]]) -> Iterator[Drift]:
        """Compare the rows of `run_state` of the same runs, in any order; forget all of them."""
        for row in stored:
            run_id = row["run_id"]
            drift = _compared(run_id, self._states.pop(run_id, None), row)
            if drift.columns:
                yield drift
        for run_id, state in self._states.items():
            yield _compared(run_id, state, None)
        self._states.clear()


_Step = tuple[str, Callable[[Any, Any], Any], str]


def _steps_of(type_: str) -> Iterator[_Step]:
    for name, operation, source, types, _ in COLUMNS:
        if types is None or type_ in types:
            yield name, _STEPS[operation], source


def _compared(
    run_id: UUID, want: Mapping[str, Any] | None, have: Mapping[str, Any] | None
) -> Drift:
    pairs = ((name, want[name] if want else None, have[name] if have else None) for name in _START)
    columns = {
        name: (_plain(folded), _plain(held))
        for name, folded, held in pairs
        if want is None or have is None or not _same(folded, held)
    }
    return Drift(run_id, columns, expected=want is not None, stored=have is not None)


def _same(left: Any, right: Any) -> bool:
    """Whether two values are the same; NaN is the same as NaN."""
    return bool(left == right or (left != left and right != right))  # noqa: PLR0124


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; numbers keep their digits."""
    if isinstance(value, bytes):
        return f"\\x{value.hex()}"
    if isinstance(value, datetime):
        return value.isoformat()
    return value
