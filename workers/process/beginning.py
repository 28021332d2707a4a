"""What a process of a fleet tells its parent: that it has begun, that it lives, why it ends."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

_BEGUN: Final = b"\n"
_ALIVE: Final = b"\0"
_MOST: Final = 2_000
"""Bytes of a reason: less than a pipe holds, so that nobody waits for a reader."""
_PIPE: Final = 65_536
"""Bytes that a pipe holds."""


class Parent:
    """The pipe to the parent; none in a process that no fleet started."""

    descriptor: int | None = None


def tell_by(descriptor: int) -> None:
    """Tell the parent by this descriptor, which no process started from here inherits."""
    os.set_inheritable(descriptor, False)  # noqa: FBT003  it takes no keyword
    os.set_blocking(descriptor, False)
    Parent.descriptor = descriptor


def begun() -> None:
    """Tell the parent that this process has begun its work."""
    _tell(_BEGUN)


def alive() -> None:
    """Tell the parent that this process is not frozen."""
    _tell(_ALIVE)


def failed(reason: str) -> None:
    """Tell the parent why this process ends; it matters if it never began."""
    _tell(reason.encode(errors="replace").replace(_ALIVE, b"?")[:_MOST])


class Telling:
    """What a process has told by now, at the parent's end of the pipe."""

    def __init__(self, descriptor: int) -> None:
        """Read from this descriptor."""
        os.set_blocking(descriptor, False)
        self._descriptor, self._words = descriptor, b""

    def hear(self) -> bool:
        """Whether the process has told anything since the last time, or has closed the pipe."""
        try:
            words = os.read(self._descriptor, _PIPE)
        except BlockingIOError:
            return False
        self._words = (self._words + words.replace(_ALIVE, b""))[: len(_BEGUN) + _MOST]
        return True

    @property
    def has_begun(self) -> bool:
        """Whether the process has begun its work."""
        return self._words.startswith(_BEGUN)

    @property
    def reason(self) -> str:
        """Why the process ended."""
        return self._words.decode(errors="replace").strip()


def _tell(words: bytes) -> None:
    if Parent.descriptor is not None:
        with suppress(OSError):  # the parent is gone or frozen, or a handler closed the pipe
            os.write(Parent.descriptor, words)
