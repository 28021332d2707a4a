"""Reads that are more than one line of SQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.dialects.postgresql import asyncpg

from ledger.calls import HISTORY
from ledger.database import Pool, fetch
from ledger.errors import UnknownKind
from ledger.events import Event, from_row
from ledger.lifecycle import State
from ledger.run import Run
from ledger.tables import event as event_table
from ledger.tables import kind as kind_table
from ledger.tables import run as run_view

_FACTS: Final = tuple(column.name for column in event_table.columns if column.name != "txid")
_DIALECT: Final = asyncpg.dialect()


async def read_history(pool: Pool, project_id: str, run_id: UUID, after: int) -> list[Event]:
    """Give the run's events after a version, with their content."""
    rows = await fetch(pool, HISTORY, project_id, run_id, after)
    return [from_row({name: row[name] for name in _FACTS if row[name] is not None}, row["body"]) for row in rows]


async def list_runs(
    pool: Pool,
    project_id: str,
    *,
    states: Sequence[State] | None,
    kind: str | None,
    worker_id: str | None,
    tag: str | None,
    key: str | None,
    before: UUID | None,
    limit: int,
) -> list[Run]:
    """Give the newest runs that pass every given filter."""
    if kind is not None:
        await _require_kind(pool, project_id, kind)
    query = select(run_view).where(run_view.c.project_id == project_id)
    if states is not None:
        query = query.where(run_view.c.state.in_([state.value for state in states]))
    for column, value in ((run_view.c.kind, kind), (run_view.c.worker_id, worker_id), (run_view.c.key, key)):
        if value is not None:
            query = query.where(column == value)
    if tag is not None:
        query = query.where(run_view.c.tags.contains([tag]))
    if before is not None:
        query = query.where(run_view.c.run_id < before)
    rows = await fetch(pool, *compiled(query.order_by(run_view.c.run_id.desc()).limit(limit)))
    return [Run.from_row(row) for row in rows]


async def _require_kind(pool: Pool, project_id: str, kind: str) -> None:
    query = select(kind_table.c.kind).where(kind_table.c.project_id == project_id).order_by(kind_table.c.kind)
    known = [row["kind"] for row in await fetch(pool, *compiled(query))]
    if kind not in known:
        raise UnknownKind(kind, known)


def compiled(query: Select[Any]) -> tuple[Any, ...]:
    """Write a query as the driver takes it: the statement and its bound parameters."""
    done = query.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})
    return (str(done), *(done.params[name] for name in done.positiontup or ()))
