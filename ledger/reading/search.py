"""Pages of runs, in both directions, and counts; none looks through more than EXAMINED runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final
from uuid import UUID

from runfold.ledger.errors import InvalidValue
from runfold.ledger.postgres.connections import Pool, fetch
from runfold.ledger.reading.permitted import RUN_RIGHTS, check_found
from runfold.ledger.reading.query import Choice, Query, parse
from runfold.ledger.reading.run_filter import RunFilter
from runfold.ledger.reading.runs import require_kinds
from runfold.ledger.reading.search_statements import LEADING, Statement, beyond, prepared
from runfold.ledger.run import Run
from runfold.ledger.validation import check_int, check_run_id

MAX_PAGE: Final = 1_000
"""Runs of one page of a query."""
MAX_RUNS: Final = 10_000
"""Runs of one page of a list."""


class Page(list[Run]):
    """A list of runs, newest first, which knows where it goes on.

    `older`, `newer`: the cursors of the pages beside this one, for `before` and `after`; None where
    there is none. `examined`: how many runs were looked through where the page ends for that
    reason, else None; there may be more beyond.
    """

    def __init__(
        self,
        runs: Iterable[Run] = (),
        older: UUID | None = None,
        newer: UUID | None = None,
        examined: int | None = None,
    ) -> None:
        super().__init__(runs)
        self.older, self.newer, self.examined = older, newer, examined

    @classmethod
    def beside(
        cls,
        runs: Sequence[Run],
        cursor: UUID | None,
        onward: UUID | None,
        *,
        is_forward: bool,
        examined: int | None = None,
    ) -> Page:
        """Return the page that was reached from the cursor and goes on from `onward`."""
        back = cursor
        if cursor is not None and runs:
            back = runs[-1 if is_forward else 0].run_id
        older, newer = (back, onward) if is_forward else (onward, back)
        return cls(runs, older, newer, examined)


async def search(
    pool: Pool,
    project_id: str,
    query: Query | str,
    *,
    before: UUID | str | None = None,
    after: UUID | str | None = None,
    limit: int = 50,
    content: bool = True,
) -> Page:
    """Return one page of the runs that fit; see `Ledger.search`."""
    check_int("limit", limit, least=1, most=MAX_PAGE)
    if before is not None and after is not None:
        raise InvalidValue("after", str(after), "cannot be combined with before: leave one out")
    parsed = parse(query) if isinstance(query, str) else query
    forward = after is not None
    cursor = after if forward else before
    cursor = None if cursor is None else check_run_id(cursor)
    return await _page(
        pool, project_id, parsed, cursor, forward=forward, limit=limit, content=content
    )


async def listed(
    pool: Pool, project_id: str, chosen: RunFilter, *, limit: int, content: bool = True
) -> Page:
    """Return one page of the runs of a filter; see `Ledger.runs`."""
    check_int("limit", limit, least=1, most=MAX_RUNS)
    page = await _page(
        pool,
        project_id,
        query_of(chosen),
        chosen.cursor,
        forward=chosen.is_forward,
        limit=limit,
        content=content,
    )
    shown = {run.kind for run in page}
    # No more is asked of kinds that the page shows: each statement of a login looks for its grants.
    await require_kinds(pool, project_id, [k for k in chosen.kinds or () if k not in shown])
    return page


async def count(pool: Pool, project_id: str, query: Query) -> tuple[int, int | None]:
    """Return how many runs fit, and of how many that were looked through; None: of all."""
    statement = await prepared(pool, project_id, query)
    rows = await fetch(pool, *statement.count())
    return int(rows[0]["number"]), (await _frontier(pool, statement))[1]


def query_of(chosen: RunFilter) -> Query:
    """Return the query that asks for what a filter does."""
    return Query(
        choices=tuple(
            Choice(column, tuple(values))
            for column, name in LEADING.items()
            if (values := getattr(chosen, name)) is not None
        ),
        first_id=beyond(chosen.lower, 1),
        last_id=beyond(chosen.upper, -1),
    )


async def _page(
    pool: Pool,
    project_id: str,
    query: Query,
    cursor: UUID | None,
    *,
    forward: bool,
    limit: int,
    content: bool,
) -> Page:
    statement = await prepared(pool, project_id, query, cursor, forward=forward)
    rows = await fetch(pool, *statement.page(limit, content=content))
    await check_found(rows, pool, project_id, *RUN_RIGHTS)
    runs = [Run.from_row(row) for row in rows]
    onward, examined = None, None
    if rows and rows[0]["is_more"]:
        onward = runs[0 if forward else -1].run_id
    elif statement.is_checked:
        onward, examined = await _frontier(pool, statement)
    return Page.beside(runs, cursor, onward, is_forward=forward, examined=examined)


async def _frontier(pool: Pool, statement: Statement) -> tuple[UUID, int] | tuple[None, None]:
    """Return the last run that was looked through, and its place, if there may be runs beyond."""
    rows = await fetch(pool, *statement.frontier())
    return (rows[0]["run_id"], rows[0]["place"]) if rows else (None, None)
