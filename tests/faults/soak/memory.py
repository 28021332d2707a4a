"""Whether the memory of processes stays flat."""

from __future__ import annotations

import os
import time
from statistics import median
from typing import Final

import psutil  # type: ignore[import-untyped]

EVERY_SECONDS: Final = 2.0
WARM_UP: Final = 0.25
"""The part of the samples that is left out: imports, pools, caches, the first of everything."""
ENOUGH: Final = 40
"""With fewer samples left, nothing can be said."""
GROWTH: Final = 1.1
SLACK_BYTES: Final = 4_000_000


class Memory:
    """Samples of the private memory of this process and of those that are watched."""

    def __init__(self) -> None:
        self._processes = {"soak": psutil.Process(os.getpid())}
        self._samples: dict[str, list[int]] = {"soak": []}
        self._next = 0.0

    def watch(self, name: str, pid: int) -> None:
        """Look at another process as well."""
        self._processes[name] = psutil.Process(pid)
        self._samples[name] = []

    def sample(self) -> None:
        """Take a sample of each, if it is time."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + EVERY_SECONDS
        for name, process in self._processes.items():
            self._samples[name].append(process.memory_full_info().uss)

    def assert_flat(self) -> None:
        """Fail if the last third of a process's samples lies above the first, after a warm-up."""
        for name, samples in self._samples.items():
            kept = samples[int(len(samples) * WARM_UP) :]
            if len(kept) < ENOUGH:
                print(f"memory of {name}: too few samples to judge")
                continue
            third = len(kept) // 3
            first, last = median(kept[:third]), median(kept[-third:])
            print(f"memory of {name}: {first / 1e6:.1f} MB, then {last / 1e6:.1f} MB")
            assert last <= first * GROWTH + SLACK_BYTES, f"{name} grew from {first} to {last}"
