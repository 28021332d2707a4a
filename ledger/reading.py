"""Reading the ledger: a run, many runs, a whole history, a run as it was, and whether all of it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeAlias
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.dialects.postgresql import asyncpg

from ledger import calls
from ledger.commands import check_state
from ledger.content import check_int, check_run_id, check_text
from ledger.database import Pool, fetch
from ledger.errors import InvalidValue, RunNotFound, UnknownKind, UnknownVersion
from ledger.events import Event, from_row
from ledger.lifecycle import State
from ledger.run import Run
from ledger.settings import Settings
from ledger.tables import event as event_table
from ledger.tables import kind as kind_table
from ledger.tables import run as run_view
from ledger.verify import Report, verify

Runs: TypeAlias = list[Run]
Events: TypeAlias = list[Event]

_FACTS: Final = tuple(column.name for column in event_table.columns if column.name != "txid")
_DIALECT: Final = asyncpg.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's own gap


class Reader:
    """Reads the ledger of one project; writes nothing."""

    def __init__(self, pool: Pool, project_id: str, settings: Settings) -> None:
        self.pool = pool
        self.project_id = project_id
        self.settings = settings

    async def get(self, run_id: UUID | str) -> Run:
        """Give the run as it is. Raises RunNotFound, or InvalidValue for what is no run id."""
        wanted = check_run_id(run_id)
        rows = await fetch(self.pool, calls.GET, self.project_id, wanted)
        if not rows:
            raise RunNotFound(wanted, self.project_id)
        return Run.from_row(rows[0])

    async def list(
        self,
        *,
        state: State | str | Sequence[State | str] | None = None,
        kind: str | None = None,
        worker_id: str | None = None,
        tag: str | None = None,
        key: str | None = None,
        before: UUID | str | None = None,
        limit: int = 100,
    ) -> Runs:
        """Give runs, newest first, at most 10,000; `before` continues after the last run of an earlier page.

        Raises InvalidValue, or UnknownKind for a kind that no run has ever had.
        """
        states = [state] if isinstance(state, str) else state
        query = select(run_view).where(run_view.c.project_id == self.project_id)
        if states is not None:
            query = query.where(run_view.c.state.in_([check_state(one).value for one in states]))
        if kind is not None:
            await self._require_kind(kind)
        for column, value in ((run_view.c.kind, kind), (run_view.c.worker_id, worker_id), (run_view.c.key, key)):
            if value is not None:
                query = query.where(column == check_text(column.name, value))
        if tag is not None:
            query = query.where(run_view.c.tags.contains([check_text("tag", tag)]))
        if before is not None:
            query = query.where(run_view.c.run_id < check_run_id(before))
        newest = query.order_by(run_view.c.run_id.desc()).limit(check_int("limit", limit, least=1, most=10_000))
        return [Run.from_row(row) for row in await fetch(self.pool, *compiled(newest))]

    async def history(self, run_id: UUID | str, *, after: int = 0) -> Events:
        """Give every event of the run after version `after`, in version order, with its content.

        Raises RunNotFound.
        """
        wanted = check_run_id(run_id)
        rows = await fetch(self.pool, calls.HISTORY, self.project_id, wanted, check_int("after", after, least=0))
        if not rows:
            await self.get(wanted)
        return [_event(row) for row in rows]

    async def state_at(self, run_id: UUID | str, version: int | None = None, *, time: datetime | None = None) -> Run:
        """Give the run as it was after event `version`, or at an instant: the fold over fewer events.

        Raises RunNotFound, or UnknownVersion for a version or time at which the run had no state.
        """
        wanted = check_run_id(run_id)
        if (version is None) == (time is None):
            raise InvalidValue("state_at", version, "give either a version or a time")
        if version is not None:
            check_int("version", version, least=1)
        elif time is not None and time.tzinfo is None:
            raise InvalidValue("time", time.isoformat(), "has no time zone: use an aware datetime")
        rows = await fetch(self.pool, calls.STATE_AT, self.project_id, wanted, version, time)
        if not rows or (version is not None and rows[0]["version"] != version):
            asked = version if version is not None else time
            assert asked is not None
            raise UnknownVersion(wanted, asked, (await self.get(wanted)).version)
        return Run.from_row(rows[0])

    async def verify(self, run_id: UUID | str | None = None) -> Report:
        """Check one run or all: gapless versions, hash chain, payloads, and the state against the fold of the events.

        Never raises for what it finds; see `Report`. Raises RunNotFound.
        """
        wanted = None if run_id is None else check_run_id(run_id)
        report = await verify(self.pool, self.project_id, wanted)
        if wanted is not None and not report.events and report.ok:
            raise RunNotFound(wanted, self.project_id)
        return report

    async def _require_kind(self, kind: str) -> None:
        query = (
            select(kind_table.c.kind).distinct().where(kind_table.c.project_id == self.project_id).order_by(kind_table.c.kind)
        )
        known = [row["kind"] for row in await fetch(self.pool, *compiled(query))]
        if kind not in known:
            raise UnknownKind(kind, known)


def compiled(query: Select[Any]) -> tuple[Any, ...]:
    """Write a query as the driver takes it: the statement and its bound parameters."""
    done = query.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})
    return (str(done), *(done.params[name] for name in done.positiontup or ()))


def _event(row: Mapping[str, Any]) -> Event:
    return from_row({name: row[name] for name in _FACTS if row[name] is not None}, row["body"])
