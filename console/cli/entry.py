"""The program's entry point: Ctrl-C ends it quietly even while it is being loaded."""

from __future__ import annotations

import gc
import os
import signal
import sys
from types import FrameType

_INTERRUPTED = 130  # no Final: until Ctrl-C is quiet, nothing is imported that takes a while


def main() -> int:
    """Load the program, run it and return its exit code."""
    gc.disable()  # until all is loaded: a third of a short command's time is its search for garbage
    interrupts = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if interrupts:  # a program started in the background by a shell ignores Ctrl-C
        signal.signal(signal.SIGINT, _leave)
    from runfold.console.cli.main import main as run  # noqa: PLC0415  loading takes a while

    if interrupts:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return run()


def _leave(_number: int, _frame: FrameType | None) -> None:
    os._exit(_INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
