"""One action on every run that fits a query: the count first, then in bounded batches.

A batch is one call that leaves nothing behind but the events of its runs. The query and the moment
of a bulk say which runs it is about, and each of them is cancelled or run again once. So a batch
that is sent again does nothing twice, and an interrupted bulk goes on from the last cursor.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal
from uuid import UUID

from runfold.console.shared.plain import number_of
from runfold.console.shared.rerun import Rerun, rerun_each
from runfold.ledger import Ledger, Run
from runfold.ledger.errors import InvalidValue, LedgerError
from runfold.ledger.lifecycle import TERMINAL, State
from runfold.ledger.operations.cancel import cancel_many
from runfold.ledger.postgres.clock import ledger_now
from runfold.ledger.reading.query import Query, parse
from runfold.ledger.reading.search import count, search
from runfold.ledger.validation import check_instant, check_int, check_reason

Action = Literal["cancel", "rerun"]
ACTIONS: Final[tuple[Action, ...]] = ("cancel", "rerun")
BATCH: Final = 200
"""Runs of one batch, unless the caller wants fewer."""
FIRST: Final = 20
"""Runs that are shown before anything is done."""
_MAY: Final = {
    "cancel": tuple(state.value for state in State if state not in TERMINAL),
    "rerun": tuple(state.value for state in State if state in TERMINAL),
}
"""The states in which runs may be, by action."""
_USUAL: Final = {"cancel": _MAY["cancel"], "rerun": ("failed", "timeout")}
"""The states that a bulk takes if its query names none."""


@dataclass(frozen=True, slots=True)
class Bulk:
    """An action on the runs that fit the query and were submitted before the moment."""

    action: Action
    query: str
    moment: datetime

    def parsed(self) -> Query:
        """Return the query with the end that the moment sets."""
        parsed = parse(self.query, self.moment)
        until = self.moment if parsed.until is None else min(parsed.until, self.moment)
        return replace(parsed, until=until)


@dataclass(frozen=True, slots=True)
class Preview:
    """A bulk before anything is done: how many runs fit, and the first of them.

    `examined`: how many runs were looked through, if counting ended there, else None.
    """

    bulk: Bulk
    matching: int
    examined: int | None
    runs: list[Run]

    @property
    def is_all(self) -> bool:
        """Whether no more runs fit than were counted."""
        return self.examined is None

    @property
    def in_words(self) -> str:
        """How many runs fit, in words, also where counting ended early."""
        runs = number_of(self.matching, "run")
        if self.examined is None:
            return runs
        if self.matching == self.examined:
            return f"more than {runs}"
        return f"{runs} of the newest {self.examined:,}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one run; `new_run_id` is its rerun."""

    run_id: UUID
    what: str
    new_run_id: UUID | None = None
    is_done: bool = True


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch of a bulk; `older` is where the next begins, None after the last."""

    outcomes: list[Outcome]
    older: UUID | None


async def bulk_of(ledger: Ledger, action: str, query: str, moment: datetime | None = None) -> Bulk:
    """Return the bulk of a query, at a moment or now. Raises InvalidValue or InvalidQuery."""
    chosen = next((each for each in ACTIONS if each == action), None)
    if chosen is None:
        raise InvalidValue("action", action, f"must be one of {', '.join(ACTIONS)}")
    present = await ledger_now(ledger.pool)
    at = (
        present if moment is None else min(check_instant("moment", moment).astimezone(UTC), present)
    )
    if not query.strip():
        raise InvalidValue("query", query, "must name runs, such as state:failed kind:review")
    states = [each for each in parse(query, at).choices if each.column == "state"]
    if not states:
        query = f"state:{','.join(_USUAL[chosen])} {query.strip()}"
    for state in (value for each in states for value in each.values):
        if state not in _MAY[chosen]:
            remedy = f"{chosen} takes runs that are {', '.join(_MAY[chosen])}"
            raise InvalidValue("query", query, f"{remedy}, and it also names {state}")
    return Bulk(chosen, query.strip(), at)


async def preview(ledger: Ledger, bulk: Bulk) -> Preview:
    """Return the runs that a bulk would act on; nothing is done."""
    query = bulk.parsed()
    matching, examined = await count(ledger.pool, ledger.project_id, query)
    page = await search(ledger.pool, ledger.project_id, query, limit=FIRST, content=False)
    return Preview(bulk, matching, examined, page)


async def batch(
    ledger: Ledger,
    bulk: Bulk,
    *,
    reason: str | None,
    actor: str | None = None,
    before: UUID | str | None = None,
    limit: int | None = None,
) -> Batch:
    """Act on the next runs of a bulk, the newest first, beginning beyond the cursor `before`.

    Raises InvalidValue without a reason or for the actor, and what the search raises; a run that
    cannot be acted on is an outcome that says why.
    """
    size = BATCH if limit is None else check_int("limit", limit, least=1, most=BATCH)
    if not (check_reason(reason) or "").strip():
        raise InvalidValue("reason", reason, "is needed: it is recorded with every run")
    who = ledger.project.actor_or_default(actor)
    act, content = (_cancelled, False) if bulk.action == "cancel" else (_rerun, True)
    page = await search(
        ledger.pool,
        ledger.project_id,
        bulk.parsed(),
        before=before,
        limit=size,
        content=content,  # a rerun has the same input
    )
    outcomes = await act(ledger, page, who, reason) if page else []
    return Batch(outcomes, page.older)


async def _cancelled(
    ledger: Ledger, runs: list[Run], actor: str, reason: str | None
) -> list[Outcome]:
    ids = [run.run_id for run in runs]
    done = await cancel_many(ledger.project, ids, actor=actor, reason=reason)
    return [_of_cancel(run_id, done[run_id]) for run_id in ids]


def _of_cancel(run_id: UUID, answer: Run | LedgerError) -> Outcome:
    if isinstance(answer, LedgerError):
        return Outcome(run_id, str(answer), is_done=False)
    asked = f"requested of {answer.worker_id}, which is told with its next heartbeat"
    return Outcome(run_id, "cancelled" if answer.is_terminal else asked)


async def _rerun(ledger: Ledger, runs: list[Run], actor: str, reason: str | None) -> list[Outcome]:
    done = await rerun_each(ledger, runs, actor=actor, reason=reason)
    return [_of_rerun(run.run_id, done[run.run_id]) for run in runs]


def _of_rerun(run_id: UUID, answer: Any) -> Outcome:
    if not isinstance(answer, Rerun):
        return Outcome(run_id, answer.why, is_done=False)
    return Outcome(run_id, "rerun" if answer.created else "rerun before", answer.run_id)
