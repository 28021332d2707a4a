"""The comparison with peers: each is locked by hashes, and what fails is said, not left out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import asyncpg
from benchmarks.folding import group_by_sql
from benchmarks.peers import environments
from benchmarks.peers.__main__ import NAMES
from benchmarks.peers.page import BEGIN, END, PAGE, publish
from benchmarks.peers.report import table
from benchmarks.peers.sizes import FULL
from benchmarks.peers.workloads import Pace, back_after

SYSTEMS: Final = Path(environments.__file__).parent / "systems"


def test_every_system_has_a_lock_with_hashes_and_a_file() -> None:
    assert {path.stem for path in SYSTEMS.glob("*.py")} == set(NAMES)
    for name in (*NAMES, "eventsourcing", "plot"):
        lock = (environments.LOCKS / f"{name}.txt").read_text()
        pins = re.findall(r"^[a-z0-9][^ ]*==", lock, re.MULTILINE | re.IGNORECASE)
        assert pins, name
        assert lock.count("--hash=") >= len(pins), name
        assert "://" not in lock, name
        assert environments.versions(name), name


def test_what_could_not_be_measured_stands_below_the_table_with_its_reason() -> None:
    results = {
        "figures": {
            "runfold": [{"drain": 10.0, "lifecycle": {"bulk": 4.0}}, {"drain": 30.0}],
            "other": [{"skipped": "cannot be installed: no wheel"}],
            "slow": [{"drain": {"failed": "TimeoutError"}, "lifecycle": {"bulk": 2.0}}],
        }
    }

    assert table(results).splitlines() == [
        "| | runfold | other | slow |",
        "|---|---|---|---|",
        "| drain | 20 | - | - |",
        "| lifecycle.bulk | 4 | - | 2 |",
        "",
        "- other: cannot be installed: no wheel",
        "- slow, drain: TimeoutError",
    ]


def test_the_page_is_written_from_the_raw_figures_and_can_be_written_again(tmp_path: Path) -> None:
    results = {
        "date": "2026-11-28", "minutes": 19.5, "server": "PostgreSQL 18.6", "python": "3.11.7",
        "cores": 2, "rounds": 1, "load_before": [0.1, 0.1, 0.1],
        "machine": "Linux", "processor": "X",
        "size": {"jobs": 1_000, "seconds": 2.0, "held_seconds": 6},
        "versions": {"pgqueuer": {"pgqueuer": "1.6.0"}, "eventsourcing": {"eventsourcing": "9"}},
        "figures": {
            "runfold": [{"keeps": "all", "gives_up": "nothing", "drain_10_slots_per_second": 10.0}],
            "pgqueuer": [{"drain_10_slots_per_second": 5.0}], "plain": [{"skipped": "no wheel"}],
        },
        "cost": {"python": "3.12.1", "curve": [
            {"slots": 10, "runs_per_second": 9_000, "worker_us": 20.5, "server_us": 50.1}]},
        "crash": {"runfold": {"seconds": 61.5}, "pgqueuer": {"failed": "not done " * 20}},
        "folding": {"rebuild": [{"connections": 1, "ratio": 0.86}]},
        "holding": {"failed": "it ended"},
    }  # fmt: skip
    page = tmp_path / "performance.md"
    page.write_text(f"# Before\n\n{BEGIN}\nearlier\n{END}\n\n## After\n")

    publish(results, tmp_path / "performance" / "2026-11-28.json", page)
    once = page.read_text()
    publish(results, tmp_path / "performance" / "2026-11-28.json", page)

    assert page.read_text() == once
    assert once.startswith("# Before")
    assert once.endswith("## After\n")
    assert "earlier" not in once
    for text in (
        "2026-11-28", "(performance/2026-11-28.json)", "(performance/2026-11-28.svg)",
        "pgqueuer 1.6.0",
        "| drain 10 slots per second | 10 | 5 | - |", "| runfold | all | nothing |",
        "| drain, 10 slots, of the best in Python | pgqueuer | 2.00 | ≥ 2 |",
        "| single submits, of the best | - | not measured | ≥ 4 |", "| 10 | 9,000 | 20.5 | 50.1 |",
        "| crash.seconds | 61.5 | - | - |", "- plain: no wheel", "- pgqueuer, crash: not done",
        "| folding: rebuild: 1: ratio | 0.86 |", "| holding: failed | it ended |",
    ):  # fmt: skip
        assert text in once
    assert BEGIN in PAGE.read_text()
    assert END in PAGE.read_text()
    assert max(len(line) for line in once.splitlines() if line[:1] != "|") <= 100


def test_throughput_is_back_when_two_do_as_much_again_as_two_did_before_one_was_killed() -> None:
    survivor = [at / 100 for at in range(500)]  # a hundred a second, and as many by the killed one
    replacement = [at / 100 for at in range(260, 500)]

    alone = back_after(2.0, survivor, survivor)
    together = back_after(2.0, survivor, sorted(survivor + replacement))

    assert alone is None
    assert together is not None
    assert 0.4 <= together <= 0.65


def test_a_slow_system_gets_fewer_jobs_and_a_quick_one_no_more_than_there_are() -> None:
    assert Pace(bulk=100, drain=400).jobs(2, 20_000) == 200
    assert Pace(bulk=1, drain=1).jobs(2, 20_000) == 100
    assert Pace(bulk=90_000, drain=20_000).jobs(2, 20_000) == 20_000


def test_the_longest_size_has_every_number_of_slots_and_every_trickle() -> None:
    assert FULL.slots == (1, 5, 10, 50, 200, 500, 1_000)
    assert FULL.held_seconds == 600
    assert {5, 7, 20, 50, 100} < set(FULL.trickles_ms)


async def test_the_statement_that_a_rebuild_is_measured_against_runs(
    connection: asyncpg.Connection[Any],
) -> None:
    assert await connection.fetch(group_by_sql()) == []
