"""The runs of a project: one by its id, or a list by what they have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from runfold.ledger.commands import check_state
from runfold.ledger.errors import InvalidValue, RunNotFound, UnknownKind
from runfold.ledger.lifecycle import State
from runfold.ledger.postgres.connections import Pool, fetch
from runfold.ledger.run import Run
from runfold.ledger.validation import check_int, check_run_id, check_text

if TYPE_CHECKING:
    from sqlalchemy import Select, Table

MAX_RUNS: Final = 10_000
"""Runs in one list."""
GET: Final = "SELECT * FROM ledger.run WHERE project_id = $1 AND run_id = $2"
_KINDS: Final = "SELECT DISTINCT kind FROM ledger.kind WHERE project_id = $1 ORDER BY kind"


async def get(pool: Pool, project_id: str, run_id: UUID | str) -> Run:
    """Return the run as it is now. Raises RunNotFound, or InvalidValue for what is no run id."""
    checked = check_run_id(run_id)
    rows = await fetch(pool, GET, project_id, checked)
    if not rows:
        raise RunNotFound(checked, project_id)
    return Run.from_row(rows[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Which runs to list; None means all. Raises InvalidValue when it is made."""

    states: Sequence[str] | None = None
    kind: str | None = None
    worker_id: str | None = None
    tag: str | None = None
    key: str | None = None
    before: UUID | None = None

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
    ) -> RunFilter:
        """Return the filter of a caller's values. Raises InvalidValue."""
        return cls(
            states=_states(state),
            kind=_text("kind", kind),
            worker_id=_text("worker_id", worker_id),
            tag=_text("tag", tag),
            key=_text("key", key),
            before=None if before is None else check_run_id(before),
        )

    @property
    def is_unchanging(self) -> bool:
        """Whether it asks for nothing that a run's events change."""
        return self.states is None and self.worker_id is None

    def unchanging(self, query: Select[Any], table: Table, project_id: str) -> Select[Any]:
        """Narrow the query by what never changes in a run."""
        query = query.where(table.c.project_id == project_id)
        if self.kind is not None:
            query = query.where(table.c.kind == self.kind)
        if self.key is not None:
            query = query.where(table.c.key == self.key)
        if self.tag is not None:
            query = query.where(table.c.tags.contains([self.tag]))
        if self.before is not None:
            query = query.where(table.c.run_id < self.before)
        return query

    def changing(self, query: Select[Any], table: Table) -> Select[Any]:
        """Narrow the query by what a run's events change."""
        if self.states is not None:
            query = query.where(table.c.state.in_(self.states))
        if self.worker_id is not None:
            query = query.where(table.c.worker_id == self.worker_id)
        return query


async def runs(pool: Pool, project_id: str, chosen: RunFilter, *, limit: int) -> list[Run]:
    """Return runs, newest first; see `Ledger.runs`."""
    # SQLAlchemy takes a second to import: only what needs it waits for it.
    from sqlalchemy import select

    from runfold.ledger.postgres.tables import run

    check_int("limit", limit, least=1, most=MAX_RUNS)
    await require_kind(pool, project_id, chosen.kind)
    query = chosen.changing(chosen.unchanging(select(run), run, project_id), run)
    rows = await fetch(pool, *compiled(query.order_by(run.c.run_id.desc()).limit(limit)))
    return [Run.from_row(row) for row in rows]


async def require_kind(pool: Pool, project_id: str, kind: str | None) -> None:
    """Raise UnknownKind for a kind that no run of the project has ever had."""
    if kind is not None:
        known = [row["kind"] for row in await fetch(pool, _KINDS, project_id)]
        if kind not in known:
            raise UnknownKind(kind, known)


def compiled(query: Select[Any]) -> tuple[Any, ...]:
    """Return a query as the driver takes it: the statement and its bound parameters."""
    from sqlalchemy.dialects.postgresql import asyncpg

    dialect = asyncpg.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's own gap
    done = query.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
    return (str(done), *(done.params[name] for name in done.positiontup or ()))


def _states(state: State | str | Sequence[State | str] | None) -> list[str] | None:
    if state is None:
        return None
    if isinstance(state, str):
        return [check_state(state).value]
    if not isinstance(state, Iterable):
        raise InvalidValue("state", state, "must be a state or a list of states")
    return [check_state(each).value for each in state]


def _text(name: str, value: str | None) -> str | None:
    return None if value is None else check_text(name, value)
