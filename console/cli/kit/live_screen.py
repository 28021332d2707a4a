"""A screen that renews itself, until q or Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import select
import sys
import termios
import time
import tty
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final

from rich.console import Group
from rich.live import Live
from rich.text import Text

from runfold.console.cli.kit.output import console, safe_text

_LOOK_SECONDS: Final = 0.1
Draw = Callable[[int, int], Awaitable[Sequence[Text]]]
"""Returns the lines of a screen, given its width and height."""


def has_screen() -> bool:
    """Whether standard input and output are a terminal."""
    return sys.stdin.isatty() and sys.stdout.isatty()


async def renew(draw: Draw, every: float) -> None:
    """Draw the screen anew each `every` seconds, until q, end of input or Ctrl-C."""
    shown = console(sys.stdout)

    async def drawn() -> Group:
        lines = await draw(shown.width, shown.height)
        return Group(*map(safe_text, lines[: shown.height]))

    with _keys(), Live(await drawn(), console=shown, screen=True, auto_refresh=False) as live:
        due = time.monotonic() + every
        while not _asked_to_end():
            await asyncio.sleep(_LOOK_SECONDS)
            if time.monotonic() >= due:
                live.update(await drawn(), refresh=True)
                due = time.monotonic() + every


@contextlib.contextmanager
def _keys() -> Iterator[None]:
    """Read single keys; Ctrl-C interrupts as usual."""
    kept = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, kept)


def _asked_to_end() -> bool:
    ready, _, _ = select.select([sys.stdin], [], [], 0)
    return bool(ready) and sys.stdin.read(1) in {"q", "Q", "", "\x04"}
