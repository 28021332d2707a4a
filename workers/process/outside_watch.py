"""A small process that ends a worker whose interpreter is frozen and hears no signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import Final

LATE_SECONDS: Final = 1.0
"""After the last resort within the process had its turn."""
_LOOK_SECONDS: Final = 5.0
_WATCH: Final = f"""
import os, select, signal, sys, time
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
parent, first, later = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
deadline = None
while os.getppid() == parent:
    left = {_LOOK_SECONDS} if deadline is None else deadline - time.monotonic()
    if left <= 0:
        os.kill(parent, signal.SIGKILL)
        break
    if not select.select([0], [], [], min(left, {_LOOK_SECONDS}))[0]:
        continue
    heard = os.read(0, 64)
    if not heard:
        break
    for number in heard:
        if number in (signal.SIGINT, signal.SIGTERM):
            most = time.monotonic() + (first if deadline is None else later)
            deadline = most if deadline is None else min(deadline, most)
"""


class OutsideWatch:
    """Kills this process when it outlives a signal: nothing within a frozen one can.

    A call of C that keeps the interpreter's lock lets no thread of Python run. But the system's own
    handler of a signal writes its number to the wakeup file, which the watching process reads.
    """

    def __init__(self) -> None:
        """Open the wakeup file; only the main thread may."""
        self._read, write = os.pipe()
        os.set_blocking(write, False)
        self._write = write
        self._before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self, first: float, later: float) -> None:
        """Start watching: kill so many seconds after the first signal, and after later ones."""
        seconds = (str(first + LATE_SECONDS), str(later + LATE_SECONDS))
        with suppress(OSError):  # a machine without room for a process still has the last resort
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-I", "-S", "-c", _WATCH, str(os.getpid()), *seconds],
                stdin=self._read,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )

    def end(self) -> None:
        """Stop watching."""
        signal.set_wakeup_fd(self._before)
        os.close(self._write)
        os.close(self._read)
        if self._process is not None:
            self._process.kill()
            self._process.wait()
