"""Checks that each write under a lease was made under the lease that the run had (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from runfold.ledger.proof.run_state_columns import COLUMNS

_LEASED: Final = next(types or frozenset() for name, _, _, types, _ in COLUMNS if name == "token")
"""The events that say which lease the run has after them."""
_HOLDERS: Final = frozenset({"lease.heartbeat", "step.completed", "step.failed"})
"""The events that the holder of a lease alone may write."""


class LeaseCheck:
    """Takes the events of one run in order, and says which was not written under its lease."""

    def __init__(self) -> None:
        self._token: int | None = None
        self._worker: str | None = None

    def problem(self, event: Mapping[str, Any]) -> str | None:
        """Return what is wrong with the next event's lease; None if nothing."""
        type_, token, worker = event["type"], event["token"], event["worker_id"]
        if type_ == "write.refused":  # names the lease that the writer had, and lost
            return None
        if type_ == "lease.acquired":
            self._token, self._worker = token, worker
            return None if token == event["version"] else f"token {token} is not its version"
        held, holder = self._token, self._worker
        if type_ in _LEASED:
            self._token, self._worker = token, worker
        if token is None:
            return "it has no token of a lease" if type_ in _HOLDERS else None
        if token != held:
            return f"it was written under token {token}, and the lease was {held or 'none'}"
        if worker not in (None, holder):
            return f"it names worker {worker}, and {holder} held the lease"
        return None
