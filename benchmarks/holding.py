"""Measure one worker process that holds 10,000 leases: `python -m benchmarks.holding`.

No lease may be lost.

BEATS sets how many beats are awaited, every 15 seconds as in the default settings; LEASES sets how
many leases are held.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import psutil  # type: ignore[import-untyped]
import structlog

from runfold.ledger import Lease, Ledger, Submit, default_worker_id
from runfold.ledger.postgres.embedded.postgres import EmbeddedPostgres
from runfold.workers.duties.reaper import Reaper
from runfold.workers.leases.heart import Heart

LEASES: Final = int(os.environ.get("LEASES", "10000"))
BEATS: Final = int(os.environ.get("BEATS", "4"))
TTL_SECONDS: Final = 60.0
EVERY_SECONDS: Final = 15.0
_STANDING: Final = """
SELECT pg_current_wal_lsn() - '0/0'::pg_lsn AS wal, (SELECT count(*) FROM ledger.event
  WHERE type = 'lease.heartbeat') AS beats,
  (SELECT n_dead_tup FROM pg_stat_user_tables WHERE relid = 'ledger.run_state'::regclass) AS dead,
  pg_total_relation_size('ledger.run_state') AS state_bytes,
  (SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('ledger.event')) AS event_bytes
"""


async def main() -> dict[str, Any]:
    """Hold the leases through the beats, with a reaper at work, and give what it cost."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="runfold-bench-") as home:
        Path(home).chmod(0o755)
        os.environ["RUNFOLD_HOME"] = str(Path(home) / "pg")
        with EmbeddedPostgres(Path(home) / "pg"):
            async with Ledger.open(project="default") as ledger:
                return await held(ledger)


async def held(ledger: Ledger) -> dict[str, Any]:
    """Claim the leases, beat for them and reap all the while."""
    for _ in range(LEASES // 1_000):
        await ledger.submit_many([Submit(kind="held")] * 1_000)
    lost: list[Lease] = []
    worker_id = default_worker_id()
    heart = Heart(
        ledger,
        worker_id,
        TTL_SECONDS,
        EVERY_SECONDS,
        tell=lambda lease, _: lost.append(lease),
        ready=lambda: None,
    )
    await heart.start()
    while leases := await ledger.claim(worker_id, limit=1_000, ttl=TTL_SECONDS):
        heart.add(leases, time.monotonic())
    reaping = asyncio.create_task(_reap(Reaper(ledger, every=1, grace=0)))
    figures = await _measured(ledger)
    reaping.cancel()
    await heart.stop()
    return {"leases": LEASES, "lost": len(lost), **figures}


async def _measured(ledger: Ledger) -> dict[str, Any]:
    """Return what the beats cost that are made from now on."""
    before = await ledger.pool.fetchrow(_STANDING)
    server, own, begun = _server_seconds(), time.process_time(), time.monotonic()
    await asyncio.sleep(BEATS * EVERY_SECONDS)
    took = time.monotonic() - begun
    after = await ledger.pool.fetchrow(_STANDING)
    assert before is not None
    assert after is not None
    reaped = await ledger.pool.fetchval(
        "SELECT count(*) FROM ledger.event WHERE type = 'lease.expired'"
    )
    server, own = _server_seconds() - server, time.process_time() - own
    beats = after["beats"] - before["beats"]
    return {
        "seconds": round(took),
        "beats": beats,
        "reaped": reaped,
        "server_cpu_share_of_a_core": round(server / took, 3),
        "worker_cpu_share_of_a_core": round(own / took, 3),
        "server_cpu_microseconds_a_beat": round(server / max(beats, 1) * 1e6, 1),
        "wal_bytes_a_beat": round((after["wal"] - before["wal"]) / max(beats, 1)),
        "event_bytes_a_beat": round((after["event_bytes"] - before["event_bytes"]) / max(beats, 1)),
        "run_state_megabytes": round(after["state_bytes"] / 1e6, 1),
        "dead_rows": after["dead"],
    }


async def _reap(reaper: Reaper) -> None:
    while True:
        await reaper.tick()
        await asyncio.sleep(1)


def _server_seconds() -> float:
    """Return the CPU time of the server: its main process, ended backends and those at work."""
    [pid_file] = Path(os.environ["RUNFOLD_HOME"]).rglob("postmaster.pid")
    main_process = psutil.Process(int(pid_file.read_text().splitlines()[0]))
    times = main_process.cpu_times()
    spent: float = times.user + times.system + times.children_user + times.children_system
    for process in main_process.children(recursive=True):
        with suppress(psutil.Error):  # it has ended
            spent += sum(process.cpu_times()[:2])
    return spent


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main()), indent=2))
