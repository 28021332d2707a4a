"""The soak: moves against runs, workers and connections, in a random order."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from typing import Any
from uuid import UUID

from runfold.ledger import Ledger, State
from runfold.ledger.errors import DecisionRefused, IllegalTransition
from tests.faults.soak.check import check
from tests.faults.soak.memory import Memory
from tests.faults.soak.surroundings import Surroundings
from tests.support.processes import worker
from tests.support.proxy import Proxy
from tests.support.waiting import BOUND
from tests.support.working import FAST

TTL = float(FAST["RUNFOLD_LEASE_TTL_SECONDS"])
WORKERS = 3
KINDS: dict[str, Any] = {
    "double": 4, "steps": None, "flaky": None, "ask": "fly", "poison": None, "naps": None,
    "listens": None, "parent": None, "countersign": None,
}  # fmt: skip
SPARED = [word for kind in KINDS if kind != "poison" for word in ("--kinds", kind)]
DUTIES = {"worker": ["--concurrency", "5", *SPARED], "reap": [], "projections": ["run"]}
LIKELY = (10, 10, 4, 6, 1, 4, 4, 3, 4)


class Soak:
    """One soak of a project that has no runs yet."""

    def __init__(
        self, ledger: Ledger, url: str, proxy: Proxy, surroundings: Surroundings, seed: int
    ) -> None:
        """Start nothing yet; every second worker goes through the proxy."""
        self.ledger, self.proxy, self.surroundings = ledger, proxy, surroundings
        self.urls = [url, proxy.url]
        self.random = random.Random(seed)  # noqa: S311  moves, not secrets
        self.memory = Memory()
        self.submitted: dict[UUID, str] = {}
        self.called_off: set[UUID] = set()
        self.made: Counter[str] = Counter()
        self._workers: list[subprocess.Popen[bytes]] = []
        self._frozen: dict[subprocess.Popen[bytes], float] = {}
        self._duties: dict[str, subprocess.Popen[bytes]] = {}
        self._stack = ExitStack()

    async def run(self, moves: int, seconds: float = 0) -> Counter[str]:
        """Make so many moves, or move for so long; then let everything end, and check it all.

        Return the types of all events.
        """
        around = self.surroundings
        choices: dict[Callable[[], Awaitable[None]], int] = {
            self.submit: 30, self.decide: 12, self.signal: 12, self.call_off: 5, self.kill: 6,
            self.freeze: 5, self.end: 3, self.terminate: 12, self.reset: 5, self.half_close: 3,
            self.swallow: 2, self.delay: 3, around.hold: 3, around.archive: 4, around.restart: 1,
        }  # fmt: skip
        until = time.monotonic() + seconds
        with self._stack:
            self._begin_duties()
            while self.made.total() < moves or time.monotonic() < until:
                [move] = self.random.choices(list(choices), list(choices.values()))
                self._man()
                await move()
                self.memory.sample()
                self.made[move.__name__] += 1
                await asyncio.sleep(self.random.uniform(0, 0.15))
            await self._settle()
        self.memory.assert_flat()
        return await check(self.ledger, self.submitted, self.called_off)

    # -- moves -------------------------------------------------------------------------------------

    async def submit(self) -> None:
        """Submit a few runs of one kind."""
        [kind] = self.random.choices(list(KINDS), LIKELY)
        attempts = 2 if kind == "poison" else 5
        for _ in range(1 if kind == "poison" else self.random.randint(1, 4)):
            run = await self.ledger.submit(kind, KINDS[kind], max_attempts=attempts)
            self.submitted[run.run_id] = kind

    async def decide(self) -> None:
        """Decide what waits for a person, nearly always with yes."""
        for run in await self.ledger.runs(state=State.WAITING_APPROVAL, limit=10):
            no = self.random.random() < 0.2
            actor = self.random.choice(("ann", "bob")) if run.approvals else "ann"
            with suppress(IllegalTransition, DecisionRefused):
                await (self.ledger.reject if no else self.ledger.approve)(run, actor=actor)
                if no:
                    self.called_off.add(run.run_id)

    async def signal(self) -> None:
        """Send a signal to what may wait for one, more often than it is asked for."""
        waiting = await self.ledger.runs(state=State.WAITING_TOOL, limit=50)
        for run in (run for run in waiting if run.kind == "listens"):
            with suppress(IllegalTransition):
                await self.ledger.signal(run.run_id, "go", "went")

    async def call_off(self) -> None:
        """Cancel any run, whatever its state."""
        if self.submitted:
            run_id = self.random.choice(list(self.submitted))
            with suppress(IllegalTransition):
                await self.ledger.cancel(run_id, actor="ann")
                self.called_off.add(run_id)

    async def kill(self) -> None:
        """SIGKILL."""
        self.random.choice(self._workers).kill()

    async def end(self) -> None:
        """SIGTERM."""
        self.random.choice(self._workers).terminate()

    async def freeze(self) -> None:
        """SIGSTOP, for less than a lease or for more."""
        one = self.random.choice(self._workers)
        one.send_signal(signal.SIGSTOP)
        self._frozen[one] = time.monotonic() + self.random.uniform(0.2, 2.5) * TTL

    async def terminate(self) -> None:
        """Terminate a backend of any worker."""
        pids = [row["pid"] for row in await self.ledger.pool.fetch(_BACKENDS)]
        if pids:
            await self.ledger.pool.execute(
                "SELECT pg_terminate_backend($1)", self.random.choice(pids)
            )

    async def reset(self) -> None:
        """Reset the proxy's connections."""
        self.proxy.reset()

    async def half_close(self) -> None:
        """Half-close them."""
        self.proxy.half_close()

    async def swallow(self) -> None:
        """Let nothing through for a while, and never again through the connections there are."""
        self.proxy.swallow()
        await asyncio.sleep(self.random.uniform(0, TTL))
        self.proxy.forget()

    async def delay(self) -> None:
        """Hold everything back for some milliseconds, or no more."""
        self.proxy.delay = self.random.choice([0, 0.005, 0.02])

    # -- parts -------------------------------------------------------------------------------------

    def _begin_duties(self) -> None:
        """Start what no move kills, to see whether it grows: a worker, a reaper, a projector."""
        for duty, words in DUTIES.items():
            log = self.surroundings.folder / f"{duty}.log"
            process = self._stack.enter_context(worker(self.urls[0], *words, name=duty, log=log))
            self._duties[duty] = process
            self.memory.watch(duty, process.pid)

    def _man(self) -> None:
        """Replace the workers that ended, and wake those that were frozen for long enough."""
        for one, until in list(self._frozen.items()):
            if until < time.monotonic():
                del self._frozen[one]
                one.send_signal(signal.SIGCONT)
        self._workers = [one for one in self._workers if one.poll() is None]
        while len(self._workers) < WORKERS:
            url = self.urls[len(self._workers) % len(self.urls)]
            self._workers.append(
                self._stack.enter_context(worker(url, "--concurrency", "5", "--grace", "1s"))
            )

    async def _settle(self) -> None:
        """Stop the faults, and wait until every run has ended."""
        self.proxy.delay = 0
        await self.surroundings.settle()
        self._frozen = dict.fromkeys(self._frozen, 0.0)
        self._man()  # also when nothing is open: who is frozen does not hear that it should end
        deadline = time.monotonic() + BOUND
        while open_runs := await self._open():
            assert time.monotonic() < deadline, f"still open: {open_runs}"
            self._man()
            await self.decide()
            await self.signal()
            await asyncio.sleep(0.1)
        for duty, process in self._duties.items():
            log = (self.surroundings.folder / f"{duty}.log").read_text()
            assert process.poll() is None, f"{duty} has ended, though no move ended it: {log}"
        for process in (*self._workers, *self._duties.values()):
            process.terminate()
        for process in (*self._workers, *self._duties.values()):
            await asyncio.to_thread(process.wait, BOUND)

    async def _open(self) -> list[tuple[UUID, str]]:
        rows = await self.ledger.pool.fetch(
            "SELECT run_id, state FROM ledger.run_state WHERE completed_at IS NULL"
        )
        return [(row["run_id"], row["state"]) for row in rows]


_BACKENDS = """
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'runfold%'
  AND pid <> pg_backend_pid() ORDER BY backend_start
"""
