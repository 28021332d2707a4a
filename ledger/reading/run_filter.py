"""Which runs to list: what they have in common, and between which ids they lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from runfold.ledger.arguments import check_states
from runfold.ledger.lifecycle import State
from runfold.ledger.months import FIRST_RUN, LAST_RUN, first_run_at
from runfold.ledger.validation import check_aware, check_run_id, check_text


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Which runs to list; None means all, several values any of them.

    The ids lie between `lower` and `upper`, without these. `is_forward`: the page is the one next
    to `lower`, not the newest. `cursor`: the run beside which the page lies.
    """

    states: Sequence[str] | None = None
    kinds: Sequence[str] | None = None
    worker_ids: Sequence[str] | None = None
    tags: Sequence[str] | None = None
    keys: Sequence[str] | None = None
    lower: UUID = FIRST_RUN
    upper: UUID = LAST_RUN
    is_forward: bool = False
    cursor: UUID | None = None

    @classmethod
    def checked(
        cls,
        *,
        state: State | str | Sequence[State | str] | None = None,
        kind: str | None = None,
        worker_id: str | None = None,
        tag: str | None = None,
        key: str | None = None,
        before: UUID | str | None = None,
        after: UUID | str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> RunFilter:
        """Return the filter of a caller's values. Raises InvalidValue."""
        is_forward = after is not None and before is None
        cursor = after if is_forward else before
        return cls(
            states=None if state is None else check_states(state),
            kinds=_texts("kind", kind),
            worker_ids=_texts("worker_id", worker_id),
            tags=_texts("tag", tag),
            keys=_texts("key", key),
            lower=max(_after(after), _just_below(_instant("since", since))),
            upper=min(_before(before), floor(_instant("until", until), LAST_RUN)),
            is_forward=is_forward,
            cursor=None if cursor is None else check_run_id(cursor),
        )

    @property
    def is_unchanging(self) -> bool:
        """Whether it filters only by what a run's events never change."""
        return self.states is None and self.worker_ids is None


def _before(run_id: UUID | str | None) -> UUID:
    return LAST_RUN if run_id is None else check_run_id(run_id)


def _after(run_id: UUID | str | None) -> UUID:
    return FIRST_RUN if run_id is None else check_run_id(run_id)


def _just_below(time: datetime | None) -> UUID:
    return UUID(int=max(floor(time, FIRST_RUN).int - 1, 0))


def floor(time: datetime | None, otherwise: UUID) -> UUID:
    """Return the smallest run id of a time; `otherwise` where there is none."""
    return otherwise if time is None else first_run_at(time)


def _texts(name: str, value: str | None) -> list[str] | None:
    return None if value is None else [check_text(name, value)]


def _instant(name: str, value: datetime | None) -> datetime | None:
    return None if value is None else check_aware(name, value)
