"""What ends a process when nothing else does: a thread that waits for nobody."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from runfold.ledger import log, names
from runfold.workers.process.bounds import UNFINISHED

WORDS_SECONDS: Final = 0.5
_now: Final = time.monotonic
"""Bound here: a handler that stops the module's clock does not stop this."""


class LastResort:
    """Ends the process at a deadline, whatever holds it up: handlers, network, interpreter."""

    def __init__(self, end: Callable[[int], object] = os._exit) -> None:
        """Set no deadline yet; `end` takes the exit code."""
        self._end = end
        self._changed = threading.Condition()
        self._deadline: float | None = None
        self._code = UNFINISHED
        self._thread: threading.Thread | None = None

    def within(self, seconds: float, code: int = UNFINISHED) -> None:
        """End the process after these seconds, unless an earlier deadline is set."""
        deadline = _now() + seconds
        with self._changed:
            if self._deadline is None or deadline < self._deadline:
                self._deadline, self._code = deadline, code
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._watch, name="runfold-last-resort", daemon=True
                )
                self._thread.start()
            self._changed.notify()

    def disarm(self) -> None:
        """Cancel the last resort: the process lives."""
        with self._changed:
            self._deadline = None
            self._changed.notify()

    def _watch(self) -> None:
        with self._changed:
            while self._deadline is not None:
                left = self._deadline - _now()
                if left <= 0:
                    break
                self._changed.wait(left)
            else:
                self._thread = None
                return
        # A log that nobody reads must not keep the process.
        words = threading.Thread(target=_last_words, args=(self._code,), daemon=True)
        with suppress(RuntimeError):  # from Python 3.12 an interpreter that ends starts no thread
            words.start()
            words.join(WORDS_SECONDS)
        self._end(self._code)


def _last_words(code: int) -> None:
    if code == UNFINISHED:
        then = "a reaper takes up what the process held"
        log.logger().error(names.ENDED_BY_FORCE, exit_code=code, then=then)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
