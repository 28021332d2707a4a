"""A randomised soak: workers are killed, frozen and cut off while runs come and go.

`python -m tests.faults.soak --moves 2000 --seed 7`; without a seed one is drawn and printed.
The same seed makes the same moves. Timing is left to the machine, so that the same moves need not
meet the same instants.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from typing import Any
from uuid import UUID

import asyncpg

from runfold.ledger import Ledger, Run, State
from runfold.ledger.errors import DecisionRefused, IllegalTransition, VersionConflict
from runfold.ledger.events import Event, StepCompleted, ToolCompleted
from runfold.ledger.lifecycle import ATTEMPTS_EXHAUSTED, HANDLER_FAILED, TERMINAL
from runfold.ledger.postgres import schema
from runfold.ledger.postgres.urls import driver_url
from runfold.projections.state import drift
from tests.conftest import PROJECT
from tests.support.processes import WHOLE, assert_accounted, worker
from tests.support.proxy import Proxy, proxied
from tests.support.server import postgres_server
from tests.support.working import FAST

TTL = float(FAST["RUNFOLD_LEASE_TTL_SECONDS"])
WORKERS = 3
SETTLE_SECONDS = 60.0
KINDS: dict[str, Any] = {"double": 4, "steps": None, "flaky": None, "ask": "fly", "poison": None}
ENDINGS = ("run.completed", "run.failed", "run.cancelled", "approval.rejected")
LIKELY = (10, 10, 4, 6, 1)


class Soak:
    """One soak of a project that has no runs yet."""

    def __init__(
        self, ledger: Ledger, url: str, proxy: Proxy, connection: asyncpg.Connection[Any], seed: int
    ) -> None:
        """Start nothing yet; every second worker goes through the proxy."""
        self.ledger, self.proxy, self.connection = ledger, proxy, connection
        self.urls = [url, proxy.url]
        self.random = random.Random(seed)  # noqa: S311  moves, not secrets
        self.submitted: dict[UUID, str] = {}
        self.called_off: set[UUID] = set()
        self.made: Counter[str] = Counter()
        self._workers: list[subprocess.Popen[bytes]] = []
        self._frozen: dict[subprocess.Popen[bytes], float] = {}
        self._stack = ExitStack()

    async def run(self, moves: int) -> Counter[str]:
        """Make so many moves, let everything end, check it all; return the types of all events."""
        choices: dict[Callable[[], Awaitable[None]], int] = {
            self.submit: 30, self.decide: 12, self.call_off: 5, self.kill: 6, self.freeze: 5,
            self.end: 3, self.terminate: 12, self.reset: 5, self.half_close: 3, self.swallow: 2,
            self.delay: 3,
        }  # fmt: skip
        with self._stack:
            for _ in range(moves):
                [move] = self.random.choices(list(choices), list(choices.values()))
                self._man()
                await move()
                self.made[move.__name__] += 1
                await asyncio.sleep(self.random.uniform(0, 0.15))
            await self._settle()
        return await self._check()

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
            with suppress(IllegalTransition, VersionConflict, DecisionRefused):
                await (self.ledger.reject if no else self.ledger.approve)(run, actor="ann")
                if no:
                    self.called_off.add(run.run_id)

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
        mine = [
            self.connection.get_server_pid(),
            await self.ledger.pool.fetchval("SELECT pg_backend_pid()"),
        ]
        pids = [row["pid"] for row in await self.connection.fetch(_BACKENDS, mine)]
        if pids:
            await self.connection.execute(
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
        self._frozen = dict.fromkeys(self._frozen, 0.0)
        self._man()  # also when nothing is open: who is frozen does not hear that it should end
        deadline = time.monotonic() + SETTLE_SECONDS
        while open_runs := await self._open():
            assert time.monotonic() < deadline, f"still open: {open_runs}"
            self._man()
            await self.decide()
            await asyncio.sleep(0.1)
        for one in self._workers:
            one.terminate()
        for one in self._workers:
            await asyncio.to_thread(one.wait, 30)

    async def _open(self) -> list[tuple[UUID, str]]:
        rows = await self.connection.fetch(
            "SELECT run_id, state FROM ledger.run_state WHERE completed_at IS NULL"
        )
        return [(row["run_id"], row["state"]) for row in rows]

    async def _check(self) -> Counter[str]:
        types: Counter[str] = Counter()
        for run_id, kind in self.submitted.items():
            run, history = await self.ledger.get(run_id), await self.ledger.history(run_id)
            types.update(event.type for event in history)
            assert self._explained(run, kind, history), (
                f"{kind} {run_id} is {run.state}: {[event.type for event in history]}"
            )
            recorded = Counter(
                event.name for event in history if isinstance(event, StepCompleted | ToolCompleted)
            )
            assert set(recorded.values()) <= {1}, f"{kind} {run_id}: {recorded}"
            assert_accounted(history)
        report = await self.ledger.verify()
        assert report.ok, report.findings
        assert report.runs == len(self.submitted)
        assert [found async for found in drift.check(self.ledger)] == []
        return types

    def _explained(self, run: Run, kind: str, history: list[Event]) -> bool:
        types = Counter(event.type for event in history)
        assert run.state in TERMINAL
        assert sum(types[ending] for ending in ENDINGS) == 1
        match run.state:
            case State.COMPLETED:
                whole: dict[str, bool] = {
                    "double": run.output == 8,
                    "steps": run.output == WHOLE,
                    "flaky": isinstance(run.output, int) and run.output > 1,
                    "ask": run.output == "ann: fly",
                }
                return whole.get(kind, False)
            case State.FAILED if run.error_code == ATTEMPTS_EXHAUSTED:
                return run.attempt_count == run.max_attempts
            case State.FAILED:
                return (
                    kind == "flaky"
                    and run.error_code == HANDLER_FAILED
                    and run.attempt_count == run.max_attempts
                )
            case State.CANCELLED:
                return run.run_id in self.called_off
            case _:
                return False


_BACKENDS = """
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'runfold%' AND pid <> ALL ($1::int[])
  ORDER BY backend_start
"""


async def soak(url: str, seed: int, moves: int) -> str:
    """Soak the project `test` of a database that has no runs; gives what happened, in one line."""
    os.environ["RUNFOLD_POOL_SIZE"] = "1"  # one connection here, which is spared
    connection = await asyncpg.connect(driver_url(url))
    try:
        async with Ledger.open(url, PROJECT) as ledger, proxied(url) as proxy:
            one = Soak(ledger, url, proxy, connection, seed)
            types = await one.run(moves)
    finally:
        del os.environ["RUNFOLD_POOL_SIZE"]
        await connection.close()
    return f"{len(one.submitted)} runs; moves: {dict(one.made)}; events: {dict(types)}"


def main() -> None:
    """Soak a server of its own."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak")
    parser.add_argument("--moves", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))  # noqa: S311  moves, not secrets
    given = parser.parse_args()
    print(f"seed {given.seed}, {given.moves} moves", flush=True)
    with postgres_server() as server:
        asyncio.run(_prepared(server.url))
        print(asyncio.run(soak(server.url, given.seed, given.moves)))


async def _prepared(url: str) -> None:
    await schema.upgrade(url)
    async with Ledger.open(url, PROJECT, create_project=True):
        pass


if __name__ == "__main__":
    main()
