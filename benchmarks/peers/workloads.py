"""The workloads: what is done with one system, in a fresh database, by processes of its own."""

from __future__ import annotations

import asyncio
import signal
import statistics
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import asyncpg

from benchmarks.peers import processes
from benchmarks.peers.processes import ChildError, Figures
from benchmarks.peers.sizes import MAIN_SLOTS, Size

POLL_SECONDS: Final = 0.02
ASK_SECONDS: Final = 1.0
"""How often the database is asked whether all is done while fewer jobs have begun than there are:
for some systems it is a long query."""
CALLERS: Final = 32
LEAST_JOBS: Final = 100
TRIES: Final = (100, 500, 2_500)
"""Jobs by which a system's pace is found: few first, and more if they took no longer than this:"""
TRY_SECONDS: Final = 2.0
DROPPED_WAITS: Final = 5
"""Of the first jobs of a trickle, which find plans and caches cold."""
LOAD_SECONDS: Final = 1.0
LOAD_PART: Final = 0.3
"""How long two workers are at work when one of them is killed, and the most that is done then."""
WINDOW_SECONDS: Final = 0.25
BACK: Final = 0.8
"""The part of the rate before, from which on throughput counts as back."""


@dataclass
class Pace:
    """How quick a system is, in jobs a second, as far as a first try tells."""

    bulk: float = 0.0
    drain: float = 0.0

    def jobs(self, seconds: float, most: int) -> int:
        """Return how many jobs it submits and drains in about so many seconds."""
        return round(min(max(seconds * min(self.bulk, self.drain), LEAST_JOBS), most))


@dataclass
class System:
    """One system in its database."""

    name: str
    url: str
    connection: asyncpg.Connection[Any]
    size: Size
    folder: Path
    """Empty; workers write there when they began."""
    pace: Pace
    """Found by the first that measures, and kept from round to round."""
    traits: Figures = field(default_factory=dict)

    async def begin(self) -> None:
        """Make the schema, and find the pace if it is not known."""
        self.traits = await self.call("set_up")
        for count in TRIES if not self.pace.drain else ():
            self.pace.bulk = float((await self.call("bulk", count=count))["rate"])
            self.pace.drain = await self._drained_by(1, MAIN_SLOTS, count)
            if count > TRY_SECONDS * min(self.pace.bulk, self.pace.drain):
                return

    @property
    def parts(self) -> dict[str, Callable[[], Awaitable[Any]]]:
        """Every workload by its name; the last leaves jobs behind."""
        return {
            "single_submits_per_second": self._singles,
            "lifecycle": self._lifecycle,
            **{
                f"drain_{slots}_slots_per_second": partial(self._drain, 1, slots)
                for slots in self.size.slots
            },
            "drain_two_processes_per_second": partial(self._drain, 2, MAIN_SLOTS),
            **{
                f"pick_up_{every}_ms": partial(self._picked_up, every)
                for every in self.size.trickles_ms
            },
            "held_snapshot": self._held,
        }

    async def measure(self, name: str) -> Any:
        """Do one workload; one that fails says why."""
        try:
            async with asyncio.timeout(self._limit):
                figures = await self.parts[name]()
        except Exception as error:
            figures = {"failed": str(error) or type(error).__name__}
        print(self.name, name, figures, file=sys.stderr, flush=True)
        return figures

    async def crash(self, turn: asyncio.Lock) -> Figures:
        """Kill one of two workers at work, and start another.

        Return the seconds until as much is done as before, and until every job is done. Only while
        it is quick has it the turn; then each system waits for its own timeouts.
        """
        async with turn, asyncio.timeout(self.size.timeout * 2):
            await self.begin()
            jobs = self.pace.jobs(LOAD_SECONDS * 5, self.size.jobs * 4)
            await self.call("bulk", count=jobs)
            self._forget()
            workers = await self._started(2, MAIN_SLOTS)
            late = await self._first_begun() + LOAD_SECONDS
            while time.time() < late and self._begun() < LOAD_PART * jobs:  # noqa: ASYNC110  others write
                await asyncio.sleep(0.005)
            workers[0].send_signal(signal.SIGKILL)
            killed_at = time.time()
            workers += await self._started(1, MAIN_SLOTS)
        try:
            async with asyncio.timeout(self.size.crash_seconds):
                await self._drained(every=WINDOW_SECONDS)
            took = time.time() - killed_at
            done = [(await processes.ended(worker))["done"] for worker in workers[1:]]
        except TimeoutError:
            return {"failed": f"not all was done after {self.size.crash_seconds:.0f} s"}
        finally:
            await asyncio.gather(*map(processes.stopped, workers))
        back = back_after(killed_at, done[0], sorted(done[0] + done[1]))
        return {
            "jobs": jobs,
            **({} if back is None else {"seconds_until_throughput_is_back": round(back, 1)}),
            "seconds_until_all_is_done": round(took, 1),
        }

    async def call(self, role: str, **given: Any) -> Figures:
        """Run a process of this system to its end and return its answer."""
        return await processes.answer(self.name, self.url, role, limit=self._limit, **given)

    # -- parts

    async def _singles(self) -> float:
        await self.call("submit", seconds=0.1, callers=CALLERS)
        answer = await self.call("submit", seconds=self.size.seconds, callers=CALLERS)
        await self._drained_by(1, MAIN_SLOTS, answer["made"])
        return round(float(answer["rate"]), 1)

    async def _lifecycle(self) -> Figures:
        """Submit in bulk and drain: the rate of the first, and what both leave behind."""
        before, jobs = await self._written(), self._jobs
        answer = await self.call("bulk", count=jobs)
        await self._drained_by(1, MAIN_SLOTS, jobs)
        after = await self._written()
        return {
            "bulk_submits_per_second": round(float(answer["rate"]), 1),
            "wal_bytes": round((after[0] - before[0]) / jobs),
            "kept_bytes": round((after[1] - before[1]) / jobs),
        }

    async def _drain(self, count: int, slots: int) -> float:
        jobs = self._jobs
        await self.call("bulk", count=jobs)
        rate = await self._drained_by(count, slots, jobs)
        if slots == MAIN_SLOTS:  # by more jobs than the first try, so nearer to the truth
            self.pace.drain = max(self.pace.drain, rate)
        return round(rate, 1)

    async def _picked_up(self, every_ms: int) -> Figures:
        count = min(round(self.size.trickle_seconds * 1_000 / every_ms), self.size.looks)
        async with self._workers(1, self.size.slots[0]) as workers:
            await self.call("trickle", count=count + DROPPED_WAITS, every_ms=every_ms)
            await self._drained()
            waits = sorted((await processes.ended(workers[0]))["waits"][DROPPED_WAITS:])
        return {
            "p50": round(statistics.median(waits), 1),
            "p95": round(waits[int(len(waits) * 0.95)], 1),
            "p99": round(waits[int(len(waits) * 0.99)], 1),
        }

    async def _held(self) -> Figures:
        """Drain what is submitted all the time, without and with a snapshot that is held."""
        free = await self._fed()
        holder = await asyncpg.connect(self.url)
        try:
            async with holder.transaction(isolation="repeatable_read"):
                await holder.fetchval("SELECT pg_current_xact_id(), count(*) FROM pg_class")
                held = await self._fed()
        finally:
            await holder.close()
        return {"free_per_second": free, "held_per_second": held, "ratio": round(held / free, 2)}

    async def _fed(self) -> float:
        """Return the rate in the last third of the time, while as much is submitted."""
        await self.call("bulk", count=self.pace.jobs(self.size.held_seconds / 2, self.size.jobs))
        async with self._workers(1, MAIN_SLOTS) as workers:
            await self.call("feed", seconds=self.size.held_seconds, rate=self.pace.drain)
            end = time.time()
            done = (await processes.ended(workers[0]))["done"]
        third = self.size.held_seconds / 3
        if not (late := [when for when in done if end - third <= when < end]):
            raise ChildError("nothing was done in the last third of the time")
        return round(len(late) / third, 1)

    # -- what they are made of

    @property
    def _limit(self) -> float:
        """The seconds for one part."""
        return self.size.timeout + self.size.held_seconds * 2

    @property
    def _jobs(self) -> int:
        return self.pace.jobs(self.size.seconds, self.size.jobs)

    async def _drained_by(self, count: int, slots: int, jobs: int) -> float:
        """Drain, and return the rate from the first job on: some wait for long when they start."""
        async with self._workers(count, slots):
            await self._drained(jobs)
            return jobs / (time.time() - await self._first_begun())

    async def _first_begun(self) -> float:
        """Wait until a worker has begun a job, and return when."""
        while True:
            texts = [path.read_text() for path in self.folder.glob("*.first")]
            if begun := [float(text) for text in texts if text]:
                return min(begun)
            await asyncio.sleep(0.001)

    def _begun(self) -> int:
        """Return how many jobs have begun, as the workers told last."""
        return sum(int(path.read_text() or 0) for path in self.folder.glob("*.count"))

    async def _drained(self, jobs: int = 0, *, every: float = POLL_SECONDS) -> None:
        """Wait until the database says that every job is done, once as many have begun."""
        ask_at = time.monotonic() + ASK_SECONDS * (jobs > 0)
        while True:
            await asyncio.sleep(every)
            if jobs <= self._begun() or time.monotonic() >= ask_at:
                if not await self.connection.fetchval(self.traits["unfinished"]):
                    return
                ask_at = time.monotonic() + ASK_SECONDS

    async def _written(self) -> tuple[int, int]:
        wal = await self.connection.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
        size = await self.connection.fetchval("SELECT pg_database_size(current_database())")
        return int(wal), int(size)

    @asynccontextmanager
    async def _workers(self, count: int, slots: int) -> AsyncIterator[list[Process]]:
        self._forget()
        workers = await self._started(count, slots)
        try:
            yield workers
        finally:
            await asyncio.gather(*map(processes.stopped, workers))

    def _forget(self) -> None:
        """Forget when workers began."""
        for path in self.folder.iterdir():
            path.unlink()

    async def _started(self, count: int, slots: int) -> list[Process]:
        firsts = [self.folder / f"{time.time_ns()}-{number}.first" for number in range(count)]
        starting = (processes.worker(self.name, self.url, slots, first) for first in firsts)
        answers = await asyncio.gather(*starting, return_exceptions=True)
        workers = [worker for worker in answers if not isinstance(worker, BaseException)]
        if problems := [problem for problem in answers if isinstance(problem, BaseException)]:
            await asyncio.gather(*map(processes.stopped, workers))
            raise problems[0]
        for worker in workers:
            processes.go(worker)
        return workers


def back_after(killed_at: float, survivor: Sequence[float], done: Sequence[float]) -> float | None:
    """Return how long after a worker was killed as much is done as before, or None if never.

    Before, both did as much as the survivor.
    """
    if not survivor or survivor[0] >= killed_at:
        return None
    seconds = min(killed_at - survivor[0], LOAD_SECONDS / 2)
    before = 2 * sum(killed_at - seconds <= when < killed_at for when in survivor)
    wanted = BACK * before / seconds * WINDOW_SECONDS
    later = [when for when in done if when >= killed_at]
    for place, when in enumerate(later):
        ahead = place + max(round(wanted), 1) - 1
        if ahead < len(later) and later[ahead] - when <= WINDOW_SECONDS:
            return when - killed_at
    return None
