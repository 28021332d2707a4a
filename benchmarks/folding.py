"""Measure folding: `python -m benchmarks.folding`.

Rates depend on the machine; read the ratios, whose two sides are measured in one run.

    rebuild     run_state of a whole project into a table of its own, against a bare GROUP BY with
                the same aggregates
    catch-up    a projection from nothing, against the Postgres recorder of the `eventsourcing`
                library (`make bench-peers`)
    lag         how long after a commit a live projection shows it, while others write
    memory      the most that this process and the server's backends took, for a tenth of the
                events and for all

EVENTS sets how many events there are, two million by default, and PEER_EVENTS how many of them that
library gets, which commits each by itself.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import structlog

from runfold.ledger import Ledger, Submit, Transition
from runfold.ledger.postgres.embedded.postgres import EmbeddedPostgres
from runfold.ledger.postgres.schema import sql
from runfold.projections.declared.catch_up import CatchUp
from runfold.projections.declared.installing import install
from runfold.projections.models.counts import RUN_COUNTS
from runfold.projections.rebuild import Rebuild
from runfold.projections.rebuild_plan import RebuildProgress
from runfold.projections.state.replay import plan
from runfold.workers.duties.projector import Projector

EVENTS: Final = int(os.environ.get("EVENTS", "2000000"))
BEATS: Final = 5
BATCH: Final = 10_000
ROUNDS: Final = 3
PROBES: Final = 60
PEER_EVENTS: Final = int(os.environ.get("PEER_EVENTS", "20000"))
PEER: Final = Path(__file__).parent.parent / ".venv-peers" / "eventsourcing" / "bin" / "python"
SHOWN: Final = "SELECT count(*) FROM projection.run_counts WHERE kind = $1"
NEWEST: Final = "SELECT count(*) FROM ledger.event"


async def main() -> dict[str, Any]:
    """Make the events, measure everything and give the figures."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="runfold-bench-") as home:
        Path(home).chmod(0o755)
        os.environ["RUNFOLD_HOME"] = str(Path(home) / "pg")
        with EmbeddedPostgres(Path(home) / "pg") as server:
            async with Ledger.open(project="default") as ledger:
                figures: dict[str, Any] = {"machine": platform.platform(), "cores": os.cpu_count()}
                await write(ledger, EVENTS // 10)
                figures["memory_for_a_tenth_mb"] = (await rebuilt(ledger, 2))["memory_mb"]
                await write(ledger, EVENTS)
                await ledger.pool.execute("VACUUM ANALYZE ledger.event")
                figures["rebuild"] = [await compare(ledger, connections) for connections in (1, 2)]
                figures["catch_up"] = await caught_up(ledger, server.url())
                figures["lag_ms"] = await lag(ledger)
                return figures


async def write(ledger: Ledger, events: int) -> None:
    """Submit, lease, beat for and complete runs until there are so many events."""
    begun = time.perf_counter()
    while (there := await ledger.pool.fetchval(NEWEST)) < events:
        await ledger.submit_many(
            [Submit(kind=f"kind {number % 5}", input={"n": number}) for number in range(BATCH)]
        )
        leases = await ledger.claim("bench:1", limit=BATCH)
        for _ in range(BEATS):
            leases = await ledger.heartbeat(leases)
        await ledger.transition_many(
            [Transition(lease, "completed", cost_usd_delta=0.01) for lease in leases]
        )
    say(f"{there:,} events after {time.perf_counter() - begun:.0f} s")


async def compare(ledger: Ledger, connections: int) -> dict[str, Any]:
    """Rebuild and group in turn; give the median of the ratios."""
    pairs = [
        (await rebuilt(ledger, connections), await grouped(ledger, connections))
        for _ in range(ROUNDS)
    ]
    figure = {
        "connections": connections,
        "rebuild_events_per_second": round(statistics.median(ours["rate"] for ours, _ in pairs)),
        "group_by_events_per_second": round(statistics.median(bare for _, bare in pairs)),
        "ratio": round(statistics.median(ours["rate"] / bare for ours, bare in pairs), 2),
        "memory_mb": pairs[-1][0]["memory_mb"],
    }
    say(f"rebuild over {connections}: {figure}")
    return figure


async def rebuilt(ledger: Ledger, connections: int) -> dict[str, Any]:
    """Fill a shadow of run_state; give events a second, and the memory that it took in MB."""
    peak = 0.0

    def on_progress(_: RebuildProgress) -> None:
        nonlocal peak
        peak = max(peak, backends_mb())

    async with Rebuild.begin(ledger.pool, plan("default")) as rebuild:
        begun = time.perf_counter()
        assert not await rebuild.fill(connections, on_progress=on_progress)
        took = time.perf_counter() - begun
        events = (await rebuild.progress()).events
        await rebuild.finish(keep=False)
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "rate": events / took,
        "memory_mb": {"process": round(own), "largest_backend": round(peak)},
    }


async def grouped(ledger: Ledger, connections: int) -> float:
    """Return the events a second of one plain statement with the same aggregates and processes."""
    select = group_by_sql()
    async with ledger.pool.acquire() as connection, connection.transaction():
        await connection.execute(
            "SET LOCAL work_mem = '256MB'; SET LOCAL jit = off; "
            f"SET LOCAL max_parallel_workers_per_gather = {connections - 1}"
        )
        begun = time.perf_counter()
        await connection.fetchval(f"SELECT count(r) FROM ({select} OFFSET 0) AS r")
        return float(await connection.fetchval(NEWEST) / (time.perf_counter() - begun))


def group_by_sql() -> str:
    """Return the aggregates of a rebuild as one plain statement over all events."""
    text = sql("compiled/rebuild_run_state")
    aggregates = text[
        text.index("  SELECT event.project_id") : text.index("  WHERE event.project_id")
    ]
    return f"{aggregates} GROUP BY event.project_id, event.run_id"


async def caught_up(ledger: Ledger, url: str) -> dict[str, Any]:
    """Catch a projection up from nothing, and another library on some of the same events."""
    await install(ledger.pool, RUN_COUNTS)
    begun = time.perf_counter()
    events = await CatchUp(ledger.pool, RUN_COUNTS).to_the_end()
    took = time.perf_counter() - begun
    ours = round(events / took)
    figure: dict[str, Any] = {
        "events": events,
        "events_per_second": ours,
        "eventsourcing": "not measured: `make bench-peers`",
    }
    if PEER.exists():
        peer = await asyncio.to_thread(ask_peer, url)
        figure |= {"eventsourcing": peer, "ratio": round(ours / peer["events_per_second"], 1)}
    say(f"catch-up: {figure}")
    return figure


def ask_peer(url: str) -> dict[str, Any]:
    """Measure the other library, in its own process and virtual environment."""
    parts = urlsplit(url)
    words = [
        str(PEER),
        str(Path(__file__).parent / "peers" / "eventsourcing_counts.py"),
        parse_qs(parts.query)["host"][0],
        str(PEER_EVENTS),
    ]
    done = subprocess.run(words, check=True, capture_output=True, text=True)  # noqa: S603  our own words
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


async def lag(ledger: Ledger) -> dict[str, float]:
    """Return the milliseconds from a commit to a live projection, while another task writes."""
    following = asyncio.create_task(Projector(ledger.pool, RUN_COUNTS).run())
    stop = asyncio.Event()

    async def load() -> None:
        while not stop.is_set():
            await ledger.submit_many([Submit(kind="load")] * 20)
            leases = await ledger.claim("bench:1", limit=20, kinds=["load"])
            await ledger.transition_many([Transition(lease, "completed") for lease in leases])
            await asyncio.sleep(0.05)

    loading = asyncio.create_task(load())
    waited = []
    try:
        for number in range(PROBES):
            await ledger.submit(f"probe {number}")
            begun = time.perf_counter()
            while not await ledger.pool.fetchval(SHOWN, f"probe {number}"):  # noqa: ASYNC110  only the database knows
                await asyncio.sleep(0.001)
            waited.append((time.perf_counter() - begun) * 1_000)
    finally:
        stop.set()
        await loading
        following.cancel()
    figure = {
        "p50": round(statistics.median(waited), 1),
        "p95": round(statistics.quantiles(waited, n=20)[-1], 1),
    }
    say(f"lag in ms: {figure}")
    return figure


def backends_mb() -> float:
    """Return the private memory of the largest server process in MB, without shared buffers."""
    return (
        max((anonymous_kb(status) for status in Path("/proc").glob("[0-9]*/status")), default=0)
        / 1024
    )


def anonymous_kb(status: Path) -> int:
    """Return the private memory of a process, if it is a server's."""
    try:
        lines: Iterable[str] = status.read_text().splitlines()
    except OSError:  # it has ended
        return 0
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    return (
        int(facts["RssAnon"].split()[0])
        if facts["Name"].strip() == "postgres" and "RssAnon" in facts
        else 0
    )


def say(text: str) -> None:
    """Notify what waits."""
    print(text, file=sys.stderr)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main()), indent=2))
