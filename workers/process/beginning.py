"""What a process of a fleet tells its parent: that it has begun, or why it could not."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

_BEGUN: Final = b"\n"
_MOST: Final = 2_000
"""Bytes of a reason: less than a pipe holds, so that nobody waits for a reader."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a process that has ended had told: whether it began, and else its error."""

    has_begun: bool
    reason: str


class Parent:
    """The pipe to the parent; none in a process that no fleet started."""

    descriptor: int | None = None


def tell_by(descriptor: int) -> None:
    """Tell the parent by this descriptor, which no process started from here inherits."""
    os.set_inheritable(descriptor, False)  # noqa: FBT003  it takes no keyword
    Parent.descriptor = descriptor


def begun() -> None:
    """Tell the parent that this process has begun its work."""
    _tell(_BEGUN)


def failed(reason: str) -> None:
    """Tell the parent why this process ends; it matters if it never began."""
    _tell(reason.encode(errors="replace")[:_MOST])


def heard(descriptor: int) -> Beginning:
    """Return what a process that has ended has told by the other end of this descriptor."""
    os.set_blocking(descriptor, False)
    words = b""
    with suppress(BlockingIOError):  # nothing, and a program that it left behind holds the pipe
        words = os.read(descriptor, len(_BEGUN) + _MOST)
    return Beginning(words.startswith(_BEGUN), words.decode(errors="replace").strip())


def _tell(words: bytes) -> None:
    if Parent.descriptor is not None:
        with suppress(OSError):  # the parent is gone, and this process is about to end
            os.write(Parent.descriptor, words)
