"""Where the next claim starts looking: the low-water marks of one ledger."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

RESCAN_SECONDS: Final = 1.0
"""How long a claim may start at a mark before it looks from the start again, for delayed and requeued runs."""


class Marks:
    """Remembers, for each kind, the first run of the last batch: everything before it was taken.

    Index entries of taken runs stay until vacuum, and as long as anyone holds an old snapshot vacuum cannot remove
    them; a claim from the start would walk ever more of them.
    """

    NONE: Final[tuple[list[str], list[int], list[UUID]]] = ([], [], [])

    def __init__(self) -> None:
        self._first: dict[str, tuple[int, UUID]] = {}
        self._rescan_at = 0.0

    def current(self) -> tuple[list[str], list[int], list[UUID]]:
        """Give the marks as the parallel arrays of ledger.claim; empty when it is time to look from the start."""
        now = time.monotonic()
        if now >= self._rescan_at:
            self._first.clear()
            self._rescan_at = now + RESCAN_SECONDS
        return (
            list(self._first),
            [p for p, _ in self._first.values()],
            [r for _, r in self._first.values()],
        )

    def remember(self, rows: Sequence[Mapping[str, Any]], *, full: bool) -> None:
        """Move the marks to the first run of this batch of each kind; a batch that came back short drops them."""
        if not full:
            self.clear()
            return
        seen: set[str] = set()
        for row in rows:
            if row["kind"] not in seen:
                seen.add(row["kind"])
                self._first[row["kind"]] = (row["priority"], row["run_id"])

    def clear(self) -> None:
        """Look from the start next time."""
        self._first.clear()
