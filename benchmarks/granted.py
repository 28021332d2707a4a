"""Measures what a grant costs: a login against the owner, `python -m benchmarks.granted`.

Both do the same on one database, call by call in turn, each over one connection. Compared are the
processor time of the two server processes, which a busy machine changes little, and the time that
passed, which it changes much; a ratio of 1 means that the grant costs nothing. Linux only.

Then a worker drains runs for the owner, for the login and for the owner again, TURNS times, with
the number of slots in SLOTS: the owner's second drains tell how much the machine alone changes.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

from benchmarks import servers, worker_cost
from runfold.ledger import Lease, Ledger, Submit, Transition
from runfold.ledger.events import NoteAdded

ROUNDS: Final = 300
ANALYZED: Final = 50
"""Rounds between statistics of the tables, which the server takes by itself, but later."""
BATCH: Final = 100
BATCHES: Final = 30
INPUT: Final = {"path": "a/b/c.py", "size": 1234}
OUTPUT: Final = {"lines": 120, "ok": True}
STRANGERS: Final = 200
"""Grants of others, in the project and elsewhere: the policies must find the login's own."""
DRAINED: Final = int(os.environ.get("RUNS", "3000"))
TURNS: Final = int(os.environ.get("TURNS", "5"))
SLOTS: Final = 50
FEW: Final = 300
"""Runs that each new connection drains before its time is taken."""
Call: TypeAlias = Callable[[], Awaitable[Any]]


@dataclass
class Side:
    """One of the two: its ledger, its kind of run, its server process, and what each call took."""

    ledger: Ledger
    kind: str
    pid: int
    took: dict[str, list[int]] = field(default_factory=dict)
    passed: dict[str, list[int]] = field(default_factory=dict)

    async def timed(self, name: str, call: Call) -> Any:
        """Make a call, and note the nanoseconds of processor time that the server took for it.

        And those that passed for the caller.
        """
        before, began = self._spent(), time.perf_counter_ns()
        result = await call()
        self.passed.setdefault(name, []).append(time.perf_counter_ns() - began)
        self.took.setdefault(name, []).append(self._spent() - before)
        return result

    def _spent(self) -> int:
        return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[0])


async def main() -> dict[str, Any]:
    """Measure, and return the owner's time by the login's for each call."""
    os.environ["RUNFOLD_POOL_SIZE"] = "1"
    async with servers.opened() as owner:
        await _granted(owner)
        async with Ledger.open(_as_login(str(owner.url)), "default") as login:
            sides = [await _side(owner, "owner"), await _side(login, "login")]
            for _ in range(20):
                await _together(sides, _singles)
            for side in sides:
                side.took.clear()
                side.passed.clear()
            for number in range(ROUNDS):
                if number % ANALYZED == 0:
                    await owner.pool.execute("ANALYZE ledger.run_state, ledger.event")
                await _together(sides if number % 2 else sides[::-1], _singles)
            for number in range(BATCHES):
                await _together(sides if number % 2 else sides[::-1], _batches)
        del os.environ["RUNFOLD_POOL_SIZE"]
        return _figures(*sides) | {"drains": await _drains(str(owner.url))}


async def _granted(owner: Ledger) -> None:
    await owner.pool.execute("CREATE ROLE bench LOGIN PASSWORD 'bench' IN ROLE runfold_worker")
    await owner.grant_access("bench", ["submit", "work", "read"], actors=["*"])
    for number in range(STRANGERS):
        everywhere = bool(number % 2)
        await owner.grant_access(f"other-{number}", ["read"], everywhere=everywhere)
    await owner.pool.execute("ANALYZE ledger.access_grant")


def _as_login(url: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"bench:bench@{host}").geturl()


async def _side(ledger: Ledger, kind: str) -> Side:
    return Side(ledger, kind, await ledger.pool.fetchval("SELECT pg_backend_pid()"))


async def _together(sides: list[Side], work: Callable[[Side], Awaitable[None]]) -> None:
    for side in sides:
        await work(side)


async def _singles(side: Side) -> None:
    ledger = side.ledger
    run = await side.timed("submit", lambda: ledger.submit(side.kind, INPUT))
    [lease] = await side.timed("claim", lambda: ledger.claim("w:1", kinds=[side.kind]))
    await side.timed("heartbeat", lambda: ledger.heartbeat([lease]))
    await side.timed("append", lambda: ledger.append(lease, NoteAdded(text="read")))
    await side.timed("get", lambda: ledger.get(run.run_id))
    await side.timed("history", lambda: ledger.history(run.run_id))
    await side.timed("list", lambda: ledger.runs(kind=side.kind, limit=50))
    await side.timed("complete", lambda: ledger.complete(lease, OUTPUT))
    other = await ledger.submit(side.kind, INPUT)
    [held] = await ledger.claim("w:1", kinds=[side.kind])
    await side.timed("release", lambda: ledger.release(held))
    await side.timed("signal", lambda: ledger.signal(other.run_id, "go"))
    await side.timed("reap", ledger.reap)
    await side.timed("cancel", lambda: ledger.cancel(other.run_id))


async def _batches(side: Side) -> None:
    ledger, submits = side.ledger, [Submit(kind=side.kind, input=INPUT)] * BATCH
    await side.timed(f"submit {BATCH}", lambda: ledger.submit_many(submits))
    leases: list[Lease] = await side.timed(
        f"claim {BATCH}", lambda: ledger.claim("w:1", limit=BATCH, kinds=[side.kind])
    )
    await side.timed(f"heartbeat {BATCH}", lambda: ledger.heartbeat(leases))
    ends = [Transition(lease, "completed", output=OUTPUT) for lease in leases]
    await side.timed(f"complete {BATCH}", lambda: ledger.transition_many(ends))


async def _drains(url: str) -> dict[str, Any]:
    """Drain for each in turns, and return the medians, and the owner's by the others'."""
    urls = {"owner": url, "login": _as_login(url), "owner again": url}
    took: dict[str, list[dict[str, Any]]] = {name: [] for name in urls}
    for turn in range(TURNS + 1):
        for name in urls if turn % 2 else reversed(urls):
            async with Ledger.open(urls[name], "default") as ledger:
                await worker_cost.drained(ledger, SLOTS, FEW)
                drained = await worker_cost.drained(ledger, SLOTS, DRAINED)
            if turn:  # the first warms the server
                took[name].append(drained)
    figures: dict[str, Any] = {"runs": DRAINED, "slots": SLOTS, "turns": TURNS}
    for figure in ("server", "wall"):
        medians = {
            name: statistics.median(one[figure] for one in each) / DRAINED * 1e6
            for name, each in took.items()
        }
        figures[f"{figure}_us"] = {name: round(median, 1) for name, median in medians.items()} | {
            "ratio": round(medians["owner"] / medians["login"], 3),
            "ratio of the owner to itself": round(medians["owner"] / medians["owner again"], 3),
        }
    return figures


def _figures(owner: Side, login: Side) -> dict[str, Any]:
    return {
        "processor": _compared(owner.took, login.took),
        "passed": _compared(owner.passed, login.passed),
        "load": os.getloadavg(),
        "rounds": ROUNDS,
    }


def _compared(owner: dict[str, list[int]], login: dict[str, list[int]]) -> dict[str, Any]:
    """Return the medians of both in microseconds, and the owner's by the login's."""
    medians = {
        name: (statistics.median(took), statistics.median(login[name]))
        for name, took in owner.items()
    }
    return {
        name: {"owner_us": round(ours / 1e3), "login_us": round(theirs / 1e3),
            "ratio": round(ours / theirs, 3)}
        for name, (ours, theirs) in medians.items()
    }  # fmt: skip


if __name__ == "__main__":
    json.dump(asyncio.run(main()), sys.stdout, indent=2)
    print()
