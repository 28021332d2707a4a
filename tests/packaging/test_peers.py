"""The comparison with peers: each is locked by hashes, and what fails is said, not left out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from benchmarks.peers import environments
from benchmarks.peers.__main__ import NAMES
from benchmarks.peers.report import table

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
