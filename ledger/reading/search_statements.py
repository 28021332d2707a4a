"""The statements of a query over runs: of a page, of a count, and of how far it was looked through.

One choice of the query leads: its index gives the runs in their order. The rest is checked on what
the index gives, so that a page costs no more where little of it fits. Of a tag and a state, the tag
leads if few runs have it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from runfold.ledger.months import FIRST_RUN, LAST_RUN
from runfold.ledger.postgres.connections import Connection, Pool, fetch
from runfold.ledger.reading.query import SIGNS, Bound, Choice, Query
from runfold.ledger.reading.run_filter import RunFilter, floor
from runfold.ledger.reading.run_lists import (
    few_have_tags,
    first_ids,
    number_of_lists,
    page_ids,
)

EXAMINED: Final = 10_000
"""Runs that the search for one page looks through."""
ENTRIES: Final = 40_000
"""Entries of indexes that the lists together give for a page."""
LEAST: Final = 100
"""Runs that each list may give, however many lists there are."""
_KINDS: Final = "SELECT count(DISTINCT kind) AS number FROM ledger.kind WHERE project_id = $1"
LEADING: Final = {
    "key": "keys", "worker_id": "worker_ids", "state": "states", "tags": "tags", "kind": "kinds",
}  # fmt: skip
"""Columns whose index gives runs in their order; the first that a query names leads."""

# The statement of a page: `ids` has one more than it may have, if there are more.
_PAGE: Final = """
WITH ids AS MATERIALIZED ({ids})
SELECT run.*, (SELECT count(*) FROM ids) > {limit} AS is_more
FROM ledger.read_runs($1, ARRAY(
  SELECT ids.run_id FROM ids ORDER BY ids.run_id {way} LIMIT {limit}), {content}) AS run
ORDER BY run.run_id DESC"""
# Each join has a limit, so that no plan reads all runs to join those of a page.
_CHECKED: Final = """
SELECT {what} FROM ({looked}) AS led CROSS JOIN LATERAL (
  SELECT * FROM ledger.run_state AS run WHERE run.project_id = $1
    AND run.run_id = led.run_id LIMIT 1
) AS run {where}"""


async def prepared(
    pool: Pool | Connection,
    project_id: str,
    query: Query,
    cursor: UUID | None = None,
    *,
    forward: bool = False,
) -> Statement:
    """Return the statements of a query, led by what narrows the runs most."""
    statement = Statement(project_id, query, cursor, forward=forward)
    if statement.may_be_by_tag:
        by_tag = Statement(project_id, query, cursor, forward=forward, by_tag=True)
        [row] = await fetch(pool, *by_tag.are_few())
        statement = by_tag if row["are_few"] else statement
    if statement.is_checked:
        await statement.share(pool)
    return statement


class Statement:
    """The statements of one query: constant text, and every value bound."""

    def __init__(
        self,
        project_id: str,
        query: Query,
        cursor: UUID | None,
        *,
        forward: bool,
        by_tag: bool = False,
    ) -> None:
        self._way = "ASC" if forward else "DESC"
        self._project_id = project_id
        leading = _leading(query, by_tag=by_tag)
        checked = [choice for choice in query.choices if choice not in leading]
        _require_index(query, leading, checked)
        first, last = _ids(query, cursor, forward=forward)
        led: dict[str, Any] = {LEADING[choice.column]: choice.values for choice in leading}
        self._led = RunFilter(
            lower=beyond(first, -1), upper=beyond(last, 1), is_forward=forward, **led
        )
        self._values: list[Any] = list(page_ids(project_id, self._led, EXAMINED)[1:])
        checks = [self._chosen(choice) for choice in checked]
        checks += [self._bounded(bound) for bound in query.bounds]
        self.is_checked = bool(checks)
        """Whether runs that the index gives may not fit."""
        self.may_be_by_tag = self._led.states is not None and any(
            choice.column == "tags" and not choice.negated for choice in checked
        )
        """Whether a tag could lead instead of a state."""
        self._where = f"WHERE {' AND '.join(checks)}" if checks else ""
        self._each = EXAMINED

    async def share(self, pool: Pool | Connection) -> None:
        """Bound what each list gives to its share, where the runs lie in very many lists."""
        kinds = 1
        if number_of_lists(self._led, 2) > number_of_lists(self._led, 1):
            kinds = (await fetch(pool, _KINDS, self._project_id))[0]["number"]
        lists = number_of_lists(self._led, kinds)
        while self._each > LEAST and self._each * lists > ENTRIES:
            self._each //= 2  # by steps, so that there are few statements

    def page(self, limit: int, *, content: bool) -> tuple[Any, ...]:
        """Return the statement of a page of `limit` runs, newest first, and its values."""
        if self.is_checked:
            ids = f"{self._checked('run.run_id')} ORDER BY run.run_id {self._way} LIMIT {limit + 1}"
        else:
            ids = page_ids(self._project_id, self._led, limit + 1)[0]
        page = _PAGE.format(ids=ids, limit=limit, way=self._way, content=content)
        return (page, *self._values)

    def count(self) -> tuple[Any, ...]:
        """Return the statement of how many runs fit of those that are looked through."""
        return (self._checked("count(*) AS number"), *self._values)

    def are_few(self) -> tuple[Any, ...]:
        """Return the statement that tells whether few runs have the leading tag, and its values."""
        return few_have_tags(self._project_id, self._led)

    def frontier(self) -> tuple[Any, ...]:
        """Return the statement of the last run that is looked through, and its values."""
        looked, *values = first_ids(self._project_id, self._led, EXAMINED, self._each)
        statement = (
            f"SELECT run.run_id, run.place FROM ({looked}) AS run"
            f" WHERE run.is_more OR run.place = {EXAMINED} ORDER BY run.place DESC LIMIT 1"
        )
        return (statement, *values)

    def _checked(self, what: str) -> str:
        """Return the query of something of the runs that fit, of those that are looked through."""
        looked = first_ids(self._project_id, self._led, EXAMINED, self._each)[0]
        return _CHECKED.format(what=what, looked=looked, where=self._where)

    def _chosen(self, choice: Choice) -> str:
        value = self._bind(list(choice.values))
        fits = f"run.{choice.column} = ANY ({value}::text[])"
        if choice.column == "tags":
            fits = f"run.tags && {value}::text[]"
        return f"({fits}) IS NOT TRUE" if choice.negated else fits

    def _bounded(self, bound: Bound) -> str:
        sign = SIGNS[SIGNS.index(bound.sign)]
        return f"run.{bound.column} {sign} {self._bind(bound.value)}"

    def _bind(self, value: Any) -> str:
        self._values.append(value)
        return f"${len(self._values)}"


def _leading(query: Query, *, by_tag: bool) -> list[Choice]:
    """Return the choices whose index gives the runs: one, and a kind where its index is by kind."""
    usable = [choice for choice in query.choices if not choice.negated]
    for column in LEADING:
        ranked = [choice for choice in usable if choice.column == column]
        if not ranked or (by_tag and column == "state"):
            continue
        together = "kind" if column in {"state", "tags", "worker_id"} else ""
        return ranked[:1] + [choice for choice in usable if choice.column == together]
    return []


def _require_index(query: Query, leading: Sequence[Choice], checked: Sequence[Choice]) -> None:
    """Raise InvalidQuery where no index narrows the runs at all."""
    unled = [*(choice.word for choice in checked), *(bound.word for bound in query.bounds)]
    word = next((word for word in unled if word is not None), None)
    if not leading and query.first_id is None and query.after is None and word is not None:
        raise word.refused(
            "no index answers this alone: add since:24h, or a state, kind, tag, worker or key"
        )


def _ids(query: Query, cursor: UUID | None, *, forward: bool) -> tuple[UUID, UUID]:
    """Return the first and the last run id that the page may have."""
    first = max(query.first_id or FIRST_RUN, floor(query.after, FIRST_RUN))
    last = query.last_id or LAST_RUN
    if query.until is not None:
        last = min(last, UUID(int=max(floor(query.until, LAST_RUN).int - 1, 0)))
    if cursor is not None and forward:
        first = max(first, beyond(cursor, 1))
    elif cursor is not None:
        last = min(last, beyond(cursor, -1))
    return first, last


def beyond(run_id: UUID, step: int) -> UUID:
    """Return the id that lies a step after a run's id, or before it."""
    return UUID(int=min(max(run_id.int + step, FIRST_RUN.int), LAST_RUN.int))
