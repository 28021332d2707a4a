"""The demo's story: submit files, kill a worker, decide approvals, check everything."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from runfold.console.demo.measure import library, sources
from runfold.console.demo.outcome import Outcome, States, count_states, read_outcome
from runfold.console.demo.worker import KIND, TTL_SECONDS
from runfold.console.demo.worker_processes import WorkerProcesses
from runfold.ledger import Ledger, Run, State
from runfold.ledger.lifecycle import TERMINAL
from runfold.ledger.postgres.opening import Database, opened
from runfold.ledger.settings import Settings
from runfold.workers.duties.reaper import Reaper

WORKERS: Final = 3
REVIEWER: Final = "demo-reviewer"
FEWEST_FILES: Final = 10
LOOK_SECONDS: Final = 0.1
REAP_SECONDS: Final = 0.5
ENOUGH_BEATS: Final = 2
ENOUGH_RUNS: Final = 3
KILL_WITHIN_SECONDS: Final = 15.0
LATE: Final = 0.25
"""The share of files still to be measured below which the kill no longer waits for heartbeats."""

Say = Callable[[str], None]
Show = Callable[[States, int], None]


class DemoFailed(Exception):
    """The demo cannot continue; the message has the reason."""


async def play(limit: int, say: Say, show: Show) -> Outcome:
    """Play the story on up to `limit` files in a new project; raises DemoFailed or LedgerError."""
    async with opened(None, Settings.load()) as database:
        return await play_in(database, await new_project(database), limit, say, show)


async def new_project(database: Database) -> str:
    """Make a project of the demo's own and return its name."""
    project = f"demo-{datetime.now(UTC):%Y%m%dt%H%M%Sz}-{secrets.token_hex(2)}"
    await database.create_project(project)
    return project


async def play_in(database: Database, project: str, limit: int, say: Say, show: Show) -> Outcome:
    """Play the story in a project with no runs; raises DemoFailed or LedgerError."""
    started = time.monotonic()
    files = await asyncio.to_thread(sources, limit)
    if len(files) < FEWEST_FILES:
        raise DemoFailed(
            f"{library()} has {len(files)} Python files: install the standard library's sources"
        )
    ledger = Ledger(database.pool, project, Settings.load())
    await ledger.submit_many(
        {"kind": KIND, "input": {"path": str(path), "bytes": size}} for path, size in files
    )
    say(f"{len(files)} runs submitted to project {project}, one a file; {WORKERS} workers start")
    outcome = Outcome(project, len(files))
    largest = max(files, key=lambda file: file[1])[0]
    with WorkerProcesses(database.url, project, WORKERS) as workers:
        await Director(ledger, workers, outcome, str(largest), say).direct(show)
    await read_outcome(ledger, outcome)
    outcome.seconds = time.monotonic() - started
    return outcome


class Director:
    """Watches the runs and does what the story needs next."""

    def __init__(
        self, ledger: Ledger, workers: WorkerProcesses, outcome: Outcome, unwanted: str, say: Say
    ) -> None:
        """Prepare; `unwanted` is the path of the file that the reviewer rejects."""
        self._ledger, self._workers, self._outcome = ledger, workers, outcome
        self._unwanted, self._say = unwanted, say
        self._reaper = Reaper(ledger, every=REAP_SECONDS, grace=TTL_SECONDS)
        self._kill_by = time.monotonic() + KILL_WITHIN_SECONDS

    async def direct(self, show: Show) -> None:
        """Return once every run has ended; raises DemoFailed if that can no longer happen."""
        while True:
            states = await count_states(self._ledger)
            show(states, self._outcome.files)
            if TERMINAL.issuperset(states):
                return
            if ended := self._workers.ended():
                raise DemoFailed(f"workers ended unasked, with these exit codes: {ended}")
            if self._outcome.killed is None:
                await self._kill_one(states)
            await self._decide()
            reaped = await self._reaper.tick()
            if reaped:
                self._say(f"{len(reaped)} leases expired: the reaper put their runs back")
            await asyncio.sleep(LOOK_SECONDS)

    async def _kill_one(self, states: States) -> None:
        """Kill the worker with the most runs that show heartbeats; late, any holder."""
        left = sum(
            states.get(state, 0) for state in (State.PENDING, State.RUNNING, State.WAITING_TOOL)
        )
        late = time.monotonic() > self._kill_by or left < self._outcome.files * LATE
        candidates = Counter(
            run.worker_id
            for run in await self._held()
            if run.worker_id and (late or _has_beats(run))
        )
        for worker_id, count in candidates.most_common():
            if not late and count < ENOUGH_RUNS:
                return
            self._workers.freeze(worker_id)  # what it holds now it still holds when it dies
            runs = sum(run.worker_id == worker_id for run in await self._held())
            if runs:
                self._outcome.killed = worker_id
                self._outcome.killed_pid = self._workers.kill(worker_id)
                self._say(f"{worker_id} killed with SIGKILL while it held {runs} runs")
                return
            self._workers.thaw(worker_id)

    async def _held(self) -> list[Run]:
        return await self._ledger.runs(state=[State.RUNNING, State.WAITING_TOOL], limit=1_000)

    async def _decide(self) -> None:
        for run in await self._ledger.runs(state=State.WAITING_APPROVAL, limit=1_000):
            if run.available_at is not None:  # decided, and not claimed yet
                continue
            if run.input["path"] == self._unwanted:
                reason = "the largest file of all: split it first"
                self._outcome.rejected.append(
                    await self._ledger.reject(run, actor=REVIEWER, reason=reason)
                )
                self._say(f"{REVIEWER} rejected {self._unwanted}")
            else:
                reason = "large, but in one piece for a reason"
                self._outcome.granted.append(
                    await self._ledger.approve(run, actor=REVIEWER, reason=reason)
                )


def _has_beats(run: Run) -> bool:
    # Only heartbeats have followed the lease of a run that its worker has not begun.
    waits_its_turn = run.state == State.RUNNING and run.step_count == 0 and run.token is not None
    return waits_its_turn and run.version - (run.token or 0) >= ENOUGH_BEATS
