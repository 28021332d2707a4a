"""An outage as the log tells it: each cause once, however often it is met, and its end."""

from __future__ import annotations

import time


class Outage:
    """What went wrong since something last went well."""

    def __init__(self) -> None:
        """Begin without an outage."""
        self._causes: set[str] = set()
        self._since: float | None = None

    def is_news(self, error: BaseException) -> bool:
        """Whether this is the first error of its cause, which is then known."""
        cause = cause_of(error)
        if self._since is None:
            self._since = time.monotonic()
        is_news = cause not in self._causes
        self._causes.add(cause)
        return is_news

    def end(self) -> float | None:
        """End the outage; return how many seconds it lasted, None if there was none."""
        since, self._since = self._since, None
        self._causes.clear()
        return None if since is None else time.monotonic() - since


def cause_of(error: BaseException) -> str:
    """Return the SQLSTATE at the root of an error, or the name of the root's class."""
    root = error
    while (state := getattr(root, "sqlstate", None)) is None and root.__cause__ is not None:
        root = root.__cause__
    return state or type(root).__name__
