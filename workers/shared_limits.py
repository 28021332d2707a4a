"""The limits of a process that all its handlers share: one that lowers them harms the others."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from typing import Final

from runfold.ledger import log, names

_OF_RECURSION: Final = "recursion"
_WATCHED: Final = {
    "open files": resource.RLIMIT_NOFILE,
    "address space": resource.RLIMIT_AS,
    "data": resource.RLIMIT_DATA,
    "file size": resource.RLIMIT_FSIZE,
}


class SharedLimits:
    """Remembers the limits that a process began with, and restores those that were lowered.

    Raised limits stay, and so does a lowered hard limit, which only a privileged process may raise.
    """

    def __init__(self) -> None:
        """Remember the limits as they are."""
        self._recursion = sys.getrecursionlimit()
        self._soft = {what: resource.getrlimit(which)[0] for what, which in _WATCHED.items()}

    def restore(self) -> None:
        """Set every limit that is lower than it was, and log it."""
        lowered: dict[str, int] = {}
        if (found := sys.getrecursionlimit()) < self._recursion:
            sys.setrecursionlimit(self._recursion)  # first: all else may need it
            lowered[_OF_RECURSION] = found
        for what, which in _WATCHED.items():
            soft, hard = resource.getrlimit(which)
            wanted = _lower(self._soft[what], hard)
            if soft != wanted and _lower(soft, wanted) == soft:
                with suppress(ValueError, OSError):
                    resource.setrlimit(which, (wanted, hard))
                    lowered[what] = soft
        if lowered:
            log.logger().warning(
                names.LIMITS_RESTORED, lowered=lowered, then="a handler must not: they are shared"
            )


def _lower(left: int, right: int) -> int:
    """Return the lower of two limits."""
    if resource.RLIM_INFINITY in (left, right):
        return right if left == resource.RLIM_INFINITY else left
    return min(left, right)
