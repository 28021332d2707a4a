"""The program as a child process: it ends when its standard input closes, as when its parent dies.

The first words are `--tell` and a descriptor. By it the parent learns that the child has begun, or
why it could not, and once a second that it is not frozen. With `--quiet` after them, the child
writes nothing for people except its log.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from contextlib import suppress
from select import select
from typing import Final

from runfold.workers.process import beginning

ALIVE_SECONDS: Final = 1.0


def main() -> int:
    """Load the program, run it with the words of the command line and return its exit code."""
    gc.disable()  # until all is loaded, as at the entry point
    from runfold.console.cli.kit.output import Output  # noqa: PLC0415  loading is what takes long
    from runfold.console.cli.main import main as run  # noqa: PLC0415

    _, descriptor, *words = sys.argv[1:]
    beginning.tell_by(int(descriptor))
    if words[:1] == ["--quiet"]:
        Output.talks = False
        del words[0]
    threading.Thread(target=_end_with_parent, name="runfold-parent", daemon=True).start()
    return run(words)


def _end_with_parent() -> None:
    with suppress(OSError):
        while not select([0], [], [], ALIVE_SECONDS)[0] or os.read(0, 1):
            beginning.alive()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
