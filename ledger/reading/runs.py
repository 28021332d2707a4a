"""Reading the ledger: a run, many runs, a whole history, a run as it was, and whether all of it holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, TypeAlias
from uuid import UUID

from runfold.ledger.archive import reading as archive
from runfold.ledger.commands import check_state
from runfold.ledger.errors import InvalidValue, RunNotFound, UnknownKind, UnknownVersion
from runfold.ledger.events import Event
from runfold.ledger.lifecycle import State
from runfold.ledger.operations import calls
from runfold.ledger.postgres.connections import Pool, fetch
from runfold.ledger.reading.feed import Checkpoint, Filter, as_event
from runfold.ledger.reading.past import Diff, check_instant, compiled, runs_at
from runfold.ledger.reading.subscription import Subscription
from runfold.ledger.reading.verify import Report, verify
from runfold.ledger.run import Run
from runfold.ledger.settings import Settings
from runfold.ledger.validation import check_int, check_run_id, check_text

Runs: TypeAlias = list[Run]
Events: TypeAlias = list[Event]

_KINDS: Final = "SELECT DISTINCT kind FROM ledger.kind WHERE project_id = $1 ORDER BY kind"


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

    async def runs(
        self,
        *,
        state: State | str | Sequence[State | str] | None = None,
        kind: str | None = None,
        worker_id: str | None = None,
        tag: str | None = None,
        key: str | None = None,
        before: UUID | str | None = None,
        limit: int = 100,
        at: datetime | None = None,
    ) -> Runs:
        """Give runs, newest first, at most 10,000; `before` continues after the last run of an earlier page.

        With `at` the runs are as they were at that instant: the fold of the events recorded up to then. A transaction
        that is still open may yet add events with a time before now.

        Raises InvalidValue, UnknownKind for a kind that no run has ever had, FutureInstant or BeforeFirstEvent.
        """
        # SQLAlchemy takes a second to import: only what needs it waits for it.
        from sqlalchemy import select

        from runfold.ledger.postgres.tables import run as run_view
        from runfold.ledger.postgres.tables import run_state

        given = [state] if isinstance(state, str) else state
        if given is not None and not isinstance(given, Iterable):
            raise InvalidValue("state", state, "must be a state or a list of states")
        states = None if given is None else [check_state(one).value for one in given]
        check_int("limit", limit, least=1, most=10_000)
        if kind is not None:
            await self._require_kind(kind)
        table = run_view if at is None else run_state
        query = select(run_view if at is None else run_state.c.run_id).where(
            table.c.project_id == self.project_id
        )
        for column, value in ((table.c.kind, kind), (table.c.key, key)):
            if value is not None:
                query = query.where(column == check_text(column.name, value))
        if worker_id is not None:
            check_text("worker_id", worker_id)
        if tag is not None:
            query = query.where(table.c.tags.contains([check_text("tag", tag)]))
        if before is not None:
            query = query.where(table.c.run_id < check_run_id(before))
        if at is not None:
            return await runs_at(
                self.pool,
                self.project_id,
                query,
                at,
                states=states,
                worker_id=worker_id,
                limit=limit,
            )
        if states is not None:
            query = query.where(table.c.state.in_(states))
        if worker_id is not None:
            query = query.where(table.c.worker_id == worker_id)
        rows = await fetch(self.pool, *compiled(query.order_by(table.c.run_id.desc()).limit(limit)))
        return [Run.from_row(row) for row in rows]

    async def history(
        self, run_id: UUID | str, *, after: int = 0, heartbeats: bool = True
    ) -> Events:
        """Give every event of the run after version `after`, in version order, with its content, also from the archive.

        `heartbeats` False leaves out the beats, which are nearly all events of a long run. Raises RunNotFound or
        ArchiveUnusable.
        """
        wanted = check_run_id(run_id)
        rows = await fetch(
            self.pool,
            calls.HISTORY,
            self.project_id,
            wanted,
            check_int("after", after, least=0),
            heartbeats,
        )
        if not rows and (run := await self.get(wanted)).version > after:
            rows = [row for row in await archive.entries(self.pool, run) if row["version"] > after]
            rows = [row for row in rows if heartbeats or row["type"] != "lease.heartbeat"]
        return [as_event(row) for row in rows]

    def subscribe(
        self,
        *,
        after: str | None = None,
        types: Sequence[str] | None = None,
        kinds: Sequence[str] | None = None,
        states: Sequence[str] | None = None,
        heartbeats: bool = False,
        live: bool = True,
    ) -> Subscription:
        """Give the project's events as an async iterator: every one once, each run's in order, on with what is committed.

        `after`: a subscription's `checkpoint` to go on from, or "now"; None begins with the first event. The filters are
        lists of which one must fit: event types, kinds of run, states an event leads to. Heartbeats come only on request
        or by type. `live=False` ends it when nothing is new. Raises InvalidValue.
        """
        for name, given in (("types", types), ("kinds", kinds)):
            for one in given or ():
                check_text(name, one)
        wanted = None if states is None else [check_state(one).value for one in states]
        without = None if heartbeats or types is not None else ["lease.heartbeat"]
        checkpoint = (
            None if after == "now" else Checkpoint() if after is None else Checkpoint.parse(after)
        )
        return Subscription(
            self.pool, checkpoint, Filter(self.project_id, types, without, kinds, wanted), live=live
        )

    async def state_at(
        self, run_id: UUID | str, version: int | None = None, *, time: datetime | None = None
    ) -> Run:
        """Give the run as it was after event `version`, or at an instant: the fold over fewer events.

        Raises RunNotFound, UnknownVersion for a version or time at which the run had no state, or FutureInstant.
        """
        wanted = check_run_id(run_id)
        if (version is None) == (time is None):
            raise InvalidValue("state_at", version, "give either a version or a time")
        if version is not None:
            check_int("version", version, least=1)
        elif time is not None:
            await check_instant(self.pool, self.project_id, time)
        found = [
            Run.from_row(row)
            for row in await fetch(
                self.pool, calls.STATE_AT, self.project_id, wanted, version, time
            )
        ]
        run = None if found else await self.get(wanted)
        if run is not None:
            hashes = {wanted: run.hash}
            found = await archive.states_at(
                self.pool, self.project_id, hashes, version=version, time=time
            )
        if not found or (version is not None and found[0].version != version):
            asked = version if version is not None else time
            assert asked is not None
            raise UnknownVersion(wanted, asked, (run or await self.get(wanted)).version)
        return found[0]

    async def diff(
        self, run_id: UUID | str, start: int | datetime, end: int | datetime | None = None
    ) -> Diff:
        """Give the run at two points, each a version or an instant (end None: now), and the events between them.

        Raises what `state_at` raises, and InvalidValue for an end before the start.
        """
        wanted = check_run_id(run_id)
        before = await self._at(wanted, start)
        after = await self.get(wanted) if end is None else await self._at(wanted, end)
        if after.version < before.version:
            raise InvalidValue(
                "end",
                str(end),
                f"is version {after.version}, before version {before.version} of the start",
            )
        events = await self.history(wanted, after=before.version)
        return Diff(before, after, [event for event in events if event.version <= after.version])

    async def _at(self, run_id: UUID, point: int | datetime) -> Run:
        if isinstance(point, datetime):
            return await self.state_at(run_id, time=point)
        return await self.state_at(run_id, point)

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
        known = [row["kind"] for row in await fetch(self.pool, _KINDS, self.project_id)]
        if kind not in known:
            raise UnknownKind(kind, known)
