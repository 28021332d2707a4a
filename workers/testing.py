"""The kit for tests: a real ledger for every test, with its time, crashes and people.

The fixture `runfold` is a `Kit`. In an async test use `async with runfold as kit`; in a plain one
`runfold.run(story)`, where `story` is an `async def` that takes the kit. Every test ends with
`verify`. RUNFOLD_ENV=production is refused.
"""

from __future__ import annotations

import asyncio
import difflib
import os
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from datetime import timedelta
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

import pytest

from runfold.ledger import Ledger, Run
from runfold.ledger.errors import ConfigurationError, InvalidValue, LeaseLost
from runfold.ledger.events import Event, StepCompleted
from runfold.ledger.operations.heartbeat import HeartbeatRow, beat
from runfold.ledger.postgres import schema
from runfold.ledger.postgres.connections import connect
from runfold.ledger.postgres.embedded.postgres import temporary_postgres
from runfold.ledger.run import Receipt
from runfold.ledger.settings import Settings
from runfold.ledger.validation import check_duration
from runfold.workers.duties.scheduler import Scheduler
from runfold.workers.handlers import Source
from runfold.workers.journal.children import sweep
from runfold.workers.worker import Worker

T = TypeVar("T")
PROJECT: Final = "test"
MARK: Final = "runfold test kit"
"""The comment on a database whose clock may be moved: one that this module made."""
LOOK_SECONDS: Final = 0.02
SLEPT_SECONDS: Final = 1.0
"""A sleep up to this long takes real time; a longer one waits until time is moved."""
_STANDING: Final = """
SELECT count(*) FILTER (WHERE run.token IS NOT NULL) AS held,
  count(*) FILTER (WHERE run.available_at <= ledger.now()
    AND settings.paused IS NOT TRUE) AS claimable
FROM ledger.run_state AS run
LEFT JOIN ledger.kind_state AS settings
  ON (settings.project_id, settings.kind) = (run.project_id, run.kind)
WHERE run.project_id = $1 AND run.kind = ANY ($2) AND run.completed_at IS NULL
"""
_LEFT: Final = "SELECT greatest($1 - ledger.now(), '0')"
_HELD: Final = """
SELECT run_id, token, worker_id FROM ledger.run_state
WHERE project_id = $1 AND token IS NOT NULL LIMIT 10000
"""
_MARKED: Final = (
    "SELECT shobj_description(oid, 'pg_database') FROM pg_database "
    "WHERE datname = current_database()"
)
_CLOCK: Final = """
CREATE OR REPLACE FUNCTION ledger.clock() RETURNS timestamptz LANGUAGE sql VOLATILE PARALLEL SAFE
AS $$ SELECT clock_timestamp() + '{seconds} seconds'::interval $$
"""


class Kit:
    """A ledger of its own for one test, and what a test does to it."""

    ledger: Ledger

    def __init__(self, url: str) -> None:
        self.url = url
        self._moved = timedelta()
        self._crash_after: str | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Open the ledger."""
        self.ledger = await self._stack.enter_async_context(
            Ledger.open(self.url, PROJECT, create_project=True)
        )
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *error: object) -> None:
        """Fail a test that left the ledger inconsistent; close it."""
        try:
            if kind is None:
                report = await self.ledger.verify()
                assert not report.findings, report.findings
        finally:
            await self._stack.aclose()

    def run(self, story: Callable[[Self], Awaitable[T]]) -> T:
        """Run an async story in a plain test."""

        async def with_kit() -> T:
            async with self:
                return await story(self)

        return asyncio.run(with_kit())

    async def run_until_idle(self, handlers: Source, *, seconds: float = 30) -> list[Run]:
        """Do every run that can be done now; return those that wait for time or people.

        Runs of a paused kind wait, too. Schedules are asked for the runs that are due; a handler's
        cron is one from the first time that it is given here. Fails with TimeoutError after
        `seconds`, naming the runs that are still at work.
        """
        ledger = _Crashing(self, self._crash_after)
        worker = Worker(
            ledger,
            handlers,
            poll=LOOK_SECONDS,
            grace=seconds,
            reap=False,
            schedule=False,
            listen=False,
        )
        scheduler = Scheduler(ledger, worker.handlers.values())
        await self._due(scheduler)
        working = asyncio.create_task(worker.run())
        try:
            await self._until_idle(ledger, worker, working, scheduler, seconds)
        finally:
            worker.stop()
            await working
        if self._crash_after is not None:
            missed, self._crash_after = self._crash_after, None
            raise InvalidValue(
                "crash_after",
                missed,
                "is not a step that a handler recorded in this run_until_idle",
            )
        return await self._open(worker.kinds)

    async def _until_idle(
        self,
        ledger: _Crashing,
        worker: Worker,
        working: asyncio.Task[None],
        scheduler: Scheduler,
        seconds: float,
    ) -> None:
        """Do the duties while the worker works, until it is idle or has ended."""
        deadline = time.monotonic() + seconds
        while not await self._is_idle(worker.kinds) and not working.done():
            if time.monotonic() > deadline:
                busy = [
                    f"{run.kind} {run.run_id} {run.state}" for run in await self._open(worker.kinds)
                ]
                raise TimeoutError(f"after {seconds:g} s there is still work: {', '.join(busy)}")
            if ledger.crashed is not None:
                crashed, ledger.crashed = ledger.crashed, None
                await self.lose_lease(crashed)
            await self._due(scheduler)
            await asyncio.sleep(LOOK_SECONDS)

    async def _due(self, scheduler: Scheduler) -> None:
        """Do the duties: end what is overdue, answer for ended children, submit what is due."""
        await self.ledger.reap()
        await sweep(self.ledger)
        await scheduler.tick()

    def crash_after(self, step: str) -> None:
        """Lose the attempt that records this step, right after it, as if its worker had died.

        The lease lapses and the run goes on from its history. Clean-up in the handler (`finally`)
        does run. A step that no handler records makes `run_until_idle` raise InvalidValue.
        """
        self._crash_after = step

    async def move_time(self, by: float | timedelta) -> None:
        """Move the ledger's time on by `by` seconds: delays, deadlines and leases come due."""
        moved = check_duration("by", by)
        if Settings.load().env == "production":
            raise ConfigurationError(
                "the clock of a ledger is not moved where RUNFOLD_ENV=production"
            )
        self._moved += moved
        connection = await connect(self.url, "runfold testing")
        try:
            if await connection.fetchval(_MARKED) != MARK:
                raise ConfigurationError(
                    "only the test kit's own databases have a clock that can be moved"
                )
            await connection.execute(_CLOCK.format(seconds=self._moved.total_seconds()))
        finally:
            await connection.close()

    async def lose_lease(self, run: Run | UUID) -> Run:
        """Expire a run's lease and reap it, as if its holder had died; return the run after it.

        All other leases are beaten for.
        """
        run_id, pool = _id(run), self.ledger.pool
        held = {row["run_id"]: _beat_of(row) for row in await pool.fetch(_HELD, PROJECT)}
        own = held.pop(run_id, None)
        # Beats that a worker did not send: a run that ended meanwhile has refused nobody.
        beaten = {} if own is None else await beat(pool, PROJECT, [own])  # its holder was at work
        if run_id not in beaten:
            state = (await self.ledger.get(run_id)).state
            raise InvalidValue(
                "run", run_id, f"is {state} and held by nobody, so it has no lease to lose"
            )
        left = await pool.fetchval(_LEFT, beaten[run_id].lease_until)
        await self.move_time(left + timedelta(milliseconds=1))
        # The others live: their holders beat by a clock that was not moved.
        if held:
            await beat(pool, PROJECT, list(held.values()))
        await self.ledger.reap()
        return await self.ledger.get(run_id)

    async def approve(
        self, run: Run | UUID, *, actor: str = "approver", reason: str | None = None
    ) -> Run:
        """Decide yes, as somebody."""
        return await self.ledger.approve(
            await self.ledger.get(_id(run)), actor=actor, reason=reason
        )

    async def reject(
        self, run: Run | UUID, *, actor: str = "approver", reason: str | None = None
    ) -> Run:
        """Decide no, as somebody."""
        return await self.ledger.reject(await self.ledger.get(_id(run)), actor=actor, reason=reason)

    async def assert_history(
        self, run: Run | UUID, expected: Sequence[str], *, heartbeats: bool = False
    ) -> list[Event]:
        """Fail unless the run's event types are these, in order; return the events."""
        events = await self.ledger.history(_id(run))
        happened = [event.type for event in events if heartbeats or event.type != "lease.heartbeat"]
        if happened != list(expected):
            lines = difflib.unified_diff(
                list(expected), happened, "expected", f"history of {_id(run)}", lineterm="", n=99
            )
            pytest.fail("\n".join(lines), pytrace=False)
        return events

    async def _is_idle(self, kinds: Sequence[str]) -> bool:
        row = await self.ledger.pool.fetchrow(_STANDING, PROJECT, list(kinds))
        return row is not None and not row["held"] and not row["claimable"]

    async def _open(self, kinds: Sequence[str]) -> list[Run]:
        runs = await self.ledger.runs(limit=10_000)
        return [run for kind in kinds for run in runs if run.kind == kind and not run.is_terminal]


class _Crashing(Ledger):
    """The ledger of a worker that loses its lease as soon as a step is recorded."""

    def __init__(self, kit: Kit, step: str | None) -> None:
        real = kit.ledger
        settings = real.settings.model_copy(update={"held_sleep_seconds": SLEPT_SECONDS})
        super().__init__(real.pool, real.project_id, settings, real.url)
        self._kit, self._step = kit, step
        self.crashed: UUID | None = None

    async def append(self, lease_or_run_id: Any, event: Event, **facts: Any) -> Receipt:
        """Append; then perhaps crash."""
        receipt = await super().append(lease_or_run_id, event, **facts)
        if self._step is not None and isinstance(event, StepCompleted) and event.name == self._step:
            self._step = self._kit._crash_after = None  # noqa: SLF001  one thing in two classes
            self.crashed = receipt.run_id
            raise LeaseLost(receipt.run_id, lease_or_run_id.token, "running", None, None)
        return receipt


def _beat_of(row: Mapping[str, Any]) -> HeartbeatRow:
    ttl = timedelta(seconds=Settings.load().lease_ttl_seconds)
    return HeartbeatRow(row["run_id"], row["token"], ttl, row["worker_id"])


def _id(run: Run | UUID) -> UUID:
    return run.run_id if isinstance(run, Run) else run


@contextmanager
def kit_server() -> Iterator[str]:
    """Yield the URL of RUNFOLD_TEST_URL, whose login makes databases, or of a built-in server."""
    if Settings.load().env == "production":
        raise ConfigurationError(
            "the test kit makes and moves databases: it is refused where RUNFOLD_ENV=production"
        )
    if url := os.environ.get("RUNFOLD_TEST_URL"):
        yield url
        return
    with temporary_postgres({"max_connections": "200"}) as postgres:
        yield postgres.url()


@contextmanager
def migrated(server: str) -> Iterator[str]:
    """Yield the name of a migrated database, to be copied for each test."""
    name = f"runfold_kit_{uuid.uuid4().hex[:12]}"
    asyncio.run(_execute(server, f"CREATE DATABASE {name}"))
    try:
        asyncio.run(schema.upgrade(_with_database(server, name)))
        yield name
    finally:
        asyncio.run(_execute(server, f"DROP DATABASE {name} WITH (FORCE)"))


@contextmanager
def copied(server: str, template: str) -> Iterator[Kit]:
    """Yield a kit with a database of its own."""
    name = f"runfold_kit_{uuid.uuid4().hex[:12]}"
    copy = f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy"
    asyncio.run(_execute(server, copy))
    try:
        asyncio.run(_execute(server, f"COMMENT ON DATABASE {name} IS '{MARK}'"))
        yield Kit(_with_database(server, name))
    finally:
        asyncio.run(_execute(server, f"DROP DATABASE {name} WITH (FORCE)"))


def _with_database(url: str, name: str) -> str:
    return urlsplit(url)._replace(path=f"/{name}").geturl()


async def _execute(url: str, statement: str) -> None:
    connection = await connect(url, "runfold test kit")
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
