"""Measure the full runtime with no-op handlers against other queues.

Run `make peers` first, then `python -m benchmarks.queues`.

Each in turn on the same server, in ROUNDS rounds; the best of its rounds counts, and the ratios are
what to read. What each keeps: Runfold every lease, outcome and hash for ever; Procrastinate and
Oban the finished job's row; PGQueuer a line in its log. A peer that cannot run here (Oban needs
Python 3.12: `make peers PEERS_PY=python3.12`) is named with the reason.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import structlog

from benchmarks.running import RUNS, drained, picked_up
from runfold.ledger import Ledger
from runfold.ledger.postgres.embedded.registry import EmbeddedPostgres

SLOTS: Final = 50
LOOKS: Final = 60
ROUNDS: Final = int(os.environ.get("ROUNDS", "3"))
NAMES: Final = ("procrastinate", "pgqueuer", "oban")
PEER: Final = Path(__file__).parent.parent / ".venv-peers" / "bin" / "python"


async def main() -> dict[str, Any]:
    """Measure all in rounds and compare."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    found: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="runfold-bench-") as home:
        Path(home).chmod(0o755)
        os.environ["RUNFOLD_HOME"] = str(Path(home) / "pg")
        with EmbeddedPostgres(Path(home) / "pg") as server:
            host = parse_qs(urlsplit(server.url()).query)["host"][0]
            for _ in range(ROUNDS):
                async with Ledger.open(project="default") as ledger:
                    rate, waits = await drained(ledger, SLOTS), await picked_up(ledger)
                own = {
                    "runs_per_second": rate["runs_per_second"],
                    "p50_ms": waits["p50"],
                    "p95_ms": waits["p95"],
                }
                found.setdefault("runfold", []).append(own)
                for name in NAMES:
                    found.setdefault(name, []).append(await asyncio.to_thread(peer, name, host))
    return compared(found)


def peer(name: str, host: str) -> dict[str, Any]:
    """Measure a peer in a process of its own environment; say why not where it cannot run."""
    if not PEER.exists():
        return {"skipped": "not installed: make peers"}
    words = [
        str(PEER),
        str(Path(__file__).with_name("peer_queues.py")),
        name,
        host,
        str(RUNS),
        str(SLOTS),
        str(LOOKS),
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=180)  # noqa: S603  our own script
    if done.returncode:
        return {"skipped": (done.stderr.strip().splitlines() or ["it ended"])[-1]}
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def compared(found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Take the best round of each, and its ratios with the fastest peer."""
    best: dict[str, dict[str, Any]] = {}
    for name, rounds in found.items():
        ran = [one for one in rounds if "skipped" not in one]
        best[name] = rounds[0] if not ran else {
            **ran[0],
            "runs_per_second": max(one["runs_per_second"] for one in ran),
            "p50_ms": min(one["p50_ms"] for one in ran),
            "p95_ms": min(one["p95_ms"] for one in ran),
        }  # fmt: skip
    peers = [best[name] for name in NAMES if "skipped" not in best[name]]
    own = best["runfold"]
    ratios = None if not peers else {
        "throughput_to_the_fastest_peer": round(
            own["runs_per_second"] / max(peer["runs_per_second"] for peer in peers), 2
        ),
        "p50_to_the_best_peer": round(own["p50_ms"] / min(peer["p50_ms"] for peer in peers), 2),
    }  # fmt: skip
    return {"runs": RUNS, "slots": SLOTS, "rounds": ROUNDS, **best, "ratios": ratios}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main()), indent=2))
