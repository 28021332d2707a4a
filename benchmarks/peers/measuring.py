"""The workloads: what is done with one system, in a fresh database, by processes of its own."""

from __future__ import annotations

import asyncio
import json
import signal
import statistics
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import asyncpg

from benchmarks.peers.environments import python_of

CHILD: Final = Path(__file__).with_name("child.py")
POLL_SECONDS: Final = 0.02
WARM_UP: Final = 500
"""Jobs of one caller's turn before measuring: plans and caches."""
CALLERS: Final = 32
STOP_SECONDS: Final = 6
Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Size:
    """How much is done."""

    jobs: int
    singles: int
    looks: int
    slots: tuple[int, ...]
    trickles_ms: tuple[int, ...]
    held_seconds: float
    crash_seconds: float
    """How long it may take until every job of a killed worker is done."""
    timeout: float
    """Seconds for one part, after which it counts as failed."""
    rounds: int
    minutes: float
    """How long all may take; a further round begins if it will be over by then."""
    events: int
    """Events to fold."""
    leases: int
    beats: int
    """Beats of each of the leases, every 15 seconds."""


QUICK: Final = Size(
    jobs=1_000, singles=500, looks=20, slots=(10, 500), trickles_ms=(20,), held_seconds=1,
    crash_seconds=150, timeout=30, rounds=1, minutes=15, events=60_000, leases=1_000, beats=1,
)  # fmt: skip
MIDDLE: Final = Size(
    jobs=20_000, singles=8_000, looks=150, slots=(10, 50, 500), trickles_ms=(5, 20, 100),
    held_seconds=6, crash_seconds=150, timeout=45, rounds=3, minutes=20, events=600_000,
    leases=10_000, beats=2,
)  # fmt: skip
FULL: Final = Size(
    jobs=50_000, singles=20_000, looks=300, slots=(10, 50, 500), trickles_ms=(5, 7, 20, 50, 100),
    held_seconds=600, crash_seconds=180, timeout=900, rounds=3, minutes=2_880, events=2_000_000,
    leases=10_000, beats=4,
)  # fmt: skip


class ChildError(Exception):
    """A process of a system failed or took too long; the text is its last line."""


@dataclass
class System:
    """One system in its database."""

    name: str
    url: str
    connection: asyncpg.Connection[Any]
    size: Size
    folder: Path
    """Empty; workers write there when they began."""
    traits: Figures = field(default_factory=dict)

    async def measure(self, seconds: float) -> Figures:
        """Do every workload; one that fails says why, and the others go on.

        No part begins later than so many seconds from now.
        """
        late = time.monotonic() + seconds
        self.traits = await self.call("set_up")
        figures: Figures = {"keeps": self.traits["keeps"], "gives_up": self.traits["gives_up"]}
        parts: list[tuple[str, Callable[[], Awaitable[Any]]]] = [
            ("single_submits_per_second", self._singles),
            ("lifecycle", self._lifecycle),
            *(
                (f"drain_{slots}_slots_per_second", lambda slots=slots: self._drain(1, slots))
                for slots in self.size.slots
            ),
            ("drain_two_processes_per_second", lambda: self._drain(2, self.size.slots[-1])),
            *(
                (f"pick_up_{every}_ms", lambda every=every: self._picked_up(every))
                for every in self.size.trickles_ms
            ),
            ("held_snapshot", self._held),
        ]
        for name, part in parts:
            if time.monotonic() > late:
                figures[name] = {"failed": "left out: the time was over"}
                continue
            try:
                async with asyncio.timeout(self.size.timeout + self.size.held_seconds * 2):
                    figures[name] = await part()
            except Exception as error:
                figures[name] = {"failed": str(error) or type(error).__name__}
            print(self.name, name, figures[name], file=sys.stderr, flush=True)
        return figures

    async def crash(self, turn: asyncio.Lock) -> Figures:
        """Kill one of two workers at work; return the seconds until every job is done.

        Until then nobody else has the turn; then each system waits for its own timeouts.
        """
        limit = self.size.crash_seconds
        async with AsyncExitStack() as stack:
            async with turn, asyncio.timeout(self.size.timeout * 2):
                self.traits = await self.call("set_up")
                await self.call("bulk", count=self.jobs)
                workers = await stack.enter_async_context(self._workers(2, self.size.slots[-1]))
                workers[await self._first_begun()].send_signal(signal.SIGKILL)
            start = time.perf_counter()
            try:
                await asyncio.wait_for(self._drained(), limit)
            except TimeoutError:
                return {"failed": f"jobs of the killed worker were not done after {limit:.0f} s"}
            return {"seconds_until_all_is_done": round(time.perf_counter() - start, 1)}

    async def _first_begun(self) -> int:
        """Return the number of the worker that began first: it holds jobs."""
        while not (begun := list(self.folder.glob("first-*"))):  # noqa: ASYNC110  others write
            await asyncio.sleep(0.001)
        return int(begun[0].name.removeprefix("first-"))

    @property
    def jobs(self) -> int:
        """The jobs of one part: slow systems get fewer."""
        return max(int(self.size.jobs * self.traits["part"]), 100)

    async def _singles(self) -> float:
        count = max(int(self.size.singles * self.traits["part"]), 100)
        await self.call("submit", count=WARM_UP // 10, callers=CALLERS)
        answer = await self.call("submit", count=count, callers=CALLERS)
        async with self._workers(1, self.size.slots[-1]):
            await self._drained()
        return round(float(answer["rate"]), 1)

    async def _lifecycle(self) -> Figures:
        """Submit in bulk and drain: the rate of the first, and what both leave behind."""
        before = await self._written()
        answer = await self.call("bulk", count=self.jobs)
        async with self._workers(1, self.size.slots[-1]):
            await self._drained()
        after = await self._written()
        return {
            "bulk_submits_per_second": round(float(answer["rate"]), 1),
            "wal_bytes": round((after[0] - before[0]) / self.jobs),
            "kept_bytes": round((after[1] - before[1]) / self.jobs),
        }

    async def _written(self) -> tuple[int, int]:
        wal = await self.connection.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
        size = await self.connection.fetchval("SELECT pg_database_size(current_database())")
        return int(wal), int(size)

    async def _drain(self, processes: int, slots: int) -> float:
        """Return the rate from the first job on: some systems wait for long when they start."""
        await self.call("bulk", count=self.jobs)
        async with self._workers(processes, slots):
            await self._drained()
            begun = min(float(path.read_text()) for path in self.folder.iterdir())
            return round(self.jobs / (time.time() - begun), 1)

    async def _picked_up(self, every_ms: int) -> Figures:
        async with self._workers(1, self.size.slots[0]) as workers:
            await self.call("trickle", count=self.size.looks, every_ms=every_ms)
            await self._drained()
            waits = sorted((await _ended(workers[0]))["waits"][5:])
        return {
            "p50": round(statistics.median(waits), 1),
            "p95": round(waits[int(len(waits) * 0.95)], 1),
            "p99": round(waits[int(len(waits) * 0.99)], 1),
        }

    async def _held(self) -> Figures:
        """Submit and drain again and again, without and with a snapshot that is held."""
        free = await self._cycles()
        holder = await asyncpg.connect(self.url)
        try:
            async with holder.transaction(isolation="repeatable_read"):
                await holder.fetchval("SELECT pg_current_xact_id(), count(*) FROM pg_class")
                held = await self._cycles()
        finally:
            await holder.close()
        return {"free_per_second": free, "held_per_second": held, "ratio": round(held / free, 2)}

    async def _cycles(self) -> float:
        """Return the rate of draining in the last third of the time."""
        rates, start = list[tuple[float, float]](), time.perf_counter()
        while not rates or rates[-1][0] < self.size.held_seconds:
            rate = await self._drain(1, self.size.slots[-1])
            rates.append((time.perf_counter() - start, rate))
        late = [rate for when, rate in rates if when >= rates[-1][0] * 2 / 3]
        return round(statistics.median(late), 1)

    async def _drained(self) -> None:
        """Wait until the database says that every job is done."""
        while await self.connection.fetchval(self.traits["unfinished"]):  # noqa: ASYNC110  only the database knows
            await asyncio.sleep(POLL_SECONDS)

    @asynccontextmanager
    async def _workers(self, processes: int, slots: int) -> AsyncIterator[list[Process]]:
        for path in self.folder.iterdir():
            path.unlink()
        workers = [
            await self._spawn("work", slots=slots, first=str(self.folder / f"first-{number}"))
            for number in range(processes)
        ]
        try:
            for worker in workers:
                assert worker.stdout is not None
                if await asyncio.wait_for(worker.stdout.readline(), 60) != b"ready\n":
                    raise ChildError(await _last_words(worker))
            for worker in workers:
                assert worker.stdin is not None
                worker.stdin.write(b"go\n")
            yield workers
        finally:
            await asyncio.gather(*map(_stopped, workers))

    async def call(self, role: str, **given: Any) -> Figures:
        """Run a process to its end and return its answer."""
        child = await self._spawn(role, **given)
        try:
            out, err = await asyncio.wait_for(child.communicate(), self.size.timeout)
        except BaseException:
            with suppress(ProcessLookupError):
                child.kill()
            raise
        if child.returncode:
            raise ChildError((err.decode().strip().splitlines() or ["it ended"])[-1])
        answer: Figures = json.loads(out.splitlines()[-1])
        return answer

    async def _spawn(self, role: str, **given: Any) -> Process:
        words = [str(python_of(self.name)), str(CHILD), self.name, role, self.url]
        return await asyncio.create_subprocess_exec(
            *words, json.dumps(given), stdin=PIPE, stdout=PIPE, stderr=PIPE, limit=2**26
        )


async def _ended(worker: Process) -> Figures:
    """End a worker and return its answer."""
    assert worker.stdout is not None
    worker.terminate()
    answer: Figures = json.loads(await asyncio.wait_for(worker.stdout.readline(), 30))
    return answer


async def _stopped(worker: Process) -> None:
    """Stop a worker its own way, or else kill it."""
    with suppress(ProcessLookupError):
        worker.terminate()
    try:
        await asyncio.wait_for(worker.communicate(), STOP_SECONDS)
    except (TimeoutError, ValueError):
        with suppress(ProcessLookupError):
            worker.kill()
        await worker.wait()


async def _last_words(worker: Process) -> str:
    assert worker.stderr is not None
    text = (await asyncio.wait_for(worker.stderr.read(), 30)).decode().strip()
    return (text.splitlines() or ["it ended"])[-1]
