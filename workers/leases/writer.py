"""The transitions of a worker: those of the same few milliseconds share a statement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from runfold.ledger import Lease, Ledger, Transition
from runfold.ledger.errors import LedgerError
from runfold.ledger.operations.batching import Batcher, characters
from runfold.ledger.operations.transition import Move
from runfold.ledger.run import Receipt
from runfold.workers.leases.deadline import in_time, judged
from runfold.workers.leases.heart import Heart

LINGER_SECONDS: Final = 0.001


class Writer:
    """Makes transitions under leases, one statement at a time; each caller gets its own answer."""

    def __init__(self, ledger: Ledger, heart: Heart) -> None:
        self._ledger, self._heart = ledger, heart
        self._batcher = Batcher(
            self._send, lambda move: characters(move.row.body), linger=LINGER_SECONDS
        )

        self._beginner: Batcher[Lease, Lease] = Batcher(
            self._beat, lambda _: 0, linger=LINGER_SECONDS
        )

    async def begin(self, lease: Lease) -> bool:
        """Have it on record, by a beat, that an attempt begins; return whether it may.

        Raises DatabaseUnavailable when that is not known.
        """
        try:
            return not (await self._beginner.ask(lease, distinct=lease.run_id)).lost
        except LedgerError as error:
            raise judged(error) from error

    def checked(self, command: Transition) -> Move:
        """Return the move of a command under its lease. Raises InvalidValue or PayloadTooLarge."""
        return Move(command.run, command.row(self._ledger.project.limit_bytes))

    async def move(self, move: Move) -> Receipt:
        """Make a move.

        Raises as `Ledger.transition` does, or DatabaseUnavailable when its outcome is not known.
        """
        # Judged here, not in `_send`: a statement that one move spoiled is sent again move by move.
        try:
            outcome = await self._batcher.ask(move, distinct=move.row.run_id)
        except LedgerError as error:
            raise judged(error) from error
        if isinstance(outcome, Receipt):
            return outcome
        raise judged(outcome)

    async def close(self, move: Move) -> Receipt:
        """Make a move that closes the lease; no beat follows it, unless it fails. As `move`."""
        assert isinstance(move.run, Lease)
        since = self._heart.let_go(move.run)
        try:
            return await self.move(move)
        except BaseException:  # a cancelled one, too: it may not have closed the lease
            if since is not None:
                self._heart.take(move.run, since)
            raise

    async def _send(self, moves: Sequence[Move]) -> Sequence[Receipt | LedgerError]:
        sending = self._ledger.transitions.move(moves)
        return await in_time(self._ledger.settings.lease_ttl_seconds, sending)

    async def _beat(self, leases: Sequence[Lease]) -> Sequence[Lease]:
        beating = self._ledger.heartbeat(leases)
        return await in_time(self._ledger.settings.lease_ttl_seconds, beating)
