"""Runs by a query, page by page in both directions; no page looks through more than EXAMINED runs.

One choice of the query leads: its index gives the runs in their order. The rest is checked on what
the index gives, so that a page costs no more where little of it fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from runfold.ledger.errors import InvalidValue
from runfold.ledger.months import FIRST_RUN, LAST_RUN
from runfold.ledger.postgres.connections import Pool, fetch
from runfold.ledger.reading.query import SIGNS, Bound, Choice, Query, parse
from runfold.ledger.reading.run_filter import RunFilter, floor
from runfold.ledger.reading.run_lists import looked_through, number_of_lists, page_ids
from runfold.ledger.run import Run
from runfold.ledger.validation import check_int, check_run_id

MAX_PAGE: Final = 1_000
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


@dataclass(frozen=True, slots=True)
class Page:
    """Runs that fit a query, newest first.

    `older`, `newer`: the cursors of the pages beside this one, for `before` and `after`; None where
    there is none. `examined`: how many runs were looked through where the page ends for that
    reason, else None; there may be more beyond.
    """

    runs: list[Run]
    older: UUID | None
    newer: UUID | None
    examined: int | None = None


async def search(
    pool: Pool,
    project_id: str,
    query: Query | str,
    *,
    before: UUID | str | None = None,
    after: UUID | str | None = None,
    limit: int = 50,
) -> Page:
    """Return one page of the runs that fit; see `Ledger.search`."""
    check_int("limit", limit, least=1, most=MAX_PAGE)
    if before is not None and after is not None:
        raise InvalidValue("after", str(after), "cannot be combined with before: leave one out")
    parsed = parse(query) if isinstance(query, str) else query
    forward = after is not None
    cursor = _cursor(after if forward else before)
    statement = Statement(project_id, parsed, cursor, forward=forward)
    if statement.is_checked:
        await statement.share(pool)
    rows = list(await fetch(pool, *statement.page(limit + 1)))
    more, rows = len(rows) > limit, rows[:limit]
    frontier, examined = None, None
    if statement.is_checked and not more:
        frontier, examined = await _frontier(pool, statement)
    runs = [Run.from_row(row) for row in (reversed(rows) if forward else rows)]
    onward = (runs[0] if forward else runs[-1]).run_id if more else frontier
    return Page(
        runs,
        older=_beside(runs, -1, cursor) if forward else onward,
        newer=onward if forward else _beside(runs, 0, cursor),
        examined=examined,
    )


async def count(pool: Pool, project_id: str, query: Query) -> tuple[int, int | None]:
    """Return how many runs fit, and of how many that were looked through; None: of all."""
    statement = Statement(project_id, query, None, forward=False)
    await statement.share(pool)
    rows = await fetch(pool, *statement.count())
    return int(rows[0]["number"]), (await _frontier(pool, statement))[1]


def _cursor(run_id: UUID | str | None) -> UUID | None:
    return None if run_id is None else check_run_id(run_id)


def _beside(runs: Sequence[Run], place: int, cursor: UUID | None) -> UUID | None:
    """Return the cursor of the page from which this one was reached."""
    if cursor is None:
        return None
    return runs[place].run_id if runs else cursor


async def _frontier(pool: Pool, statement: Statement) -> tuple[UUID, int] | tuple[None, None]:
    """Return the last run that was looked through, and its place, if there may be runs beyond."""
    rows = await fetch(pool, *statement.frontier())
    return (rows[0]["run_id"], rows[0]["place"]) if rows else (None, None)


class Statement:
    """The statements of one query: constant text, and every value bound."""

    def __init__(
        self, project_id: str, query: Query, cursor: UUID | None, *, forward: bool
    ) -> None:
        self._way = "ASC" if forward else "DESC"
        self._project_id = project_id
        leading = _leading(query)
        checked = [choice for choice in query.choices if choice not in leading]
        _require_index(query, leading, checked)
        first, last = _ids(query, cursor, forward=forward)
        self._led = RunFilter(
            lower=UUID(int=max(first.int - 1, 0)),
            upper=UUID(int=min(last.int + 1, LAST_RUN.int)),
            is_forward=forward,
            **{LEADING[choice.column]: choice.values for choice in leading},
        )
        self._values: list[Any] = list(page_ids(project_id, self._led, EXAMINED)[1:])
        checks = [self._chosen(choice) for choice in checked]
        checks += [self._bounded(bound) for bound in query.bounds]
        self.is_checked = bool(checks)
        """Whether runs that the index gives may not fit."""
        self._where = f"WHERE {' AND '.join(checks)}" if checks else ""
        self._each = EXAMINED

    async def share(self, pool: Pool) -> None:
        """Bound what each list gives to its share, where the runs lie in very many lists."""
        kinds = 1
        if number_of_lists(self._led, 2) > number_of_lists(self._led, 1):
            kinds = (await fetch(pool, _KINDS, self._project_id))[0]["number"]
        lists = number_of_lists(self._led, kinds)
        while self._each > LEAST and self._each * lists > ENTRIES:
            self._each //= 2  # by steps, so that there are few statements

    def page(self, limit: int) -> tuple[Any, ...]:
        """Return the statement of a page of so many runs, and its values."""
        led = self._looked() if self.is_checked else self._ids(limit)
        statement = (
            # Each join has a limit, so that no plan reads all runs to join a page of them.
            f"SELECT r.* FROM (SELECT c.project_id, c.run_id FROM ({led}) AS led"
            " CROSS JOIN LATERAL (SELECT * FROM ledger.run_state AS s"
            " WHERE s.project_id = $1 AND s.run_id = led.run_id LIMIT 1) AS c"
            f" {self._where} ORDER BY c.run_id {self._way} LIMIT {limit}) AS p"
            " CROSS JOIN LATERAL (SELECT * FROM ledger.run AS s"
            " WHERE s.project_id = p.project_id AND s.run_id = p.run_id LIMIT 1) AS r"
            f" ORDER BY p.run_id {self._way}"
        )
        return (statement, *self._values)

    def count(self) -> tuple[Any, ...]:
        """Return the statement of how many runs fit of those that are looked through."""
        statement = (
            f"SELECT count(*) AS number FROM ({self._looked()}) AS led"
            " CROSS JOIN LATERAL (SELECT * FROM ledger.run_state AS s"
            " WHERE s.project_id = $1 AND s.run_id = led.run_id LIMIT 1) AS c"
            f" {self._where}"
        )
        return (statement, *self._values)

    def frontier(self) -> tuple[Any, ...]:
        """Return the statement of the last run that is looked through, and its values."""
        looked, *values = looked_through(self._project_id, self._led, EXAMINED, self._each)
        statement = (
            f"SELECT c.run_id, c.place FROM ({looked}) AS c"
            f" WHERE c.is_more OR c.place = {EXAMINED} ORDER BY c.place DESC LIMIT 1"
        )
        return (statement, *values)

    def _looked(self) -> str:
        """Return the query of the ids that are looked through."""
        return str(looked_through(self._project_id, self._led, EXAMINED, self._each)[0])

    def _ids(self, limit: int) -> str:
        """Return the query of the ids that the index gives."""
        return str(page_ids(self._project_id, self._led, limit)[0])

    def _chosen(self, choice: Choice) -> str:
        value = self._bind(list(choice.values))
        fits = f"c.{choice.column} = ANY ({value}::text[])"
        if choice.column == "tags":
            fits = f"c.tags && {value}::text[]"
        return f"({fits}) IS NOT TRUE" if choice.negated else fits

    def _bounded(self, bound: Bound) -> str:
        sign = SIGNS[SIGNS.index(bound.sign)]
        return f"c.{bound.column} {sign} {self._bind(bound.value)}"

    def _bind(self, value: Any) -> str:
        self._values.append(value)
        return f"${len(self._values)}"


def _leading(query: Query) -> list[Choice]:
    """Return the choices whose index gives the runs: one, or with a state or tag also a kind."""
    usable = [choice for choice in query.choices if not choice.negated]
    for column in LEADING:
        if ranked := [choice for choice in usable if choice.column == column]:
            together = "kind" if column in {"state", "tags"} else ""
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
        first = max(first, UUID(int=cursor.int + 1))
    elif cursor is not None:
        last = min(last, UUID(int=cursor.int - 1))
    return first, last
