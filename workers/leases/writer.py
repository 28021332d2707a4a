"""The transitions of a worker, many to a statement: what comes within a few milliseconds goes together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from runfold.ledger import Lease, Ledger, Transition
from runfold.ledger.errors import LedgerError
from runfold.ledger.operations.batching import Row, Shared, characters
from runfold.ledger.run import Receipt
from runfold.workers.leases.deadline import within
from runfold.workers.leases.heart import Heart

LINGER_SECONDS: Final = 0.001


class Writer:
    """Makes transitions under leases, one statement at a time; each caller gets its own answer."""

    def __init__(self, ledger: Ledger, heart: Heart) -> None:
        self._ledger, self._heart = ledger, heart
        self._shared = Shared(
            self._send, lambda move: characters(move[1][6]), linger=LINGER_SECONDS
        )

    async def move(self, command: Transition, row: Row | None = None) -> Receipt:
        """Make a transition; `row`: what its `row` gave, by who has checked it already.

        Raises as `Ledger.transition` does, or DatabaseUnavailable when its outcome is not known.
        """
        assert isinstance(command.run, Lease)
        written = command.row(self._ledger.settings.payload_limit_bytes) if row is None else row
        outcome = await self._shared.ask((command.run, written), distinct=command.run.run_id)
        if isinstance(outcome, Receipt):
            return outcome
        raise outcome

    async def close(self, command: Transition, row: Row | None = None) -> Receipt:
        """Make a transition that closes the lease; no beat follows it, unless it fails. As `move`."""
        assert isinstance(command.run, Lease)
        since = self._heart.let_go(command.run)
        try:
            return await self.move(command, row)
        except LedgerError:
            if since is not None:
                self._heart.take(command.run, since)
            raise

    async def _send(self, moves: Sequence[tuple[Lease, Row]]) -> Sequence[Receipt | LedgerError]:
        return await within(self._ledger.settings.lease_ttl_seconds, self._ledger.move(moves))
