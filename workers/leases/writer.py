"""The transitions of a worker: those of the same few milliseconds share a statement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from runfold.ledger import Lease, Ledger, Transition
from runfold.ledger.errors import LedgerError
from runfold.ledger.lifecycle import HELD
from runfold.ledger.operations.batching import Batcher, Listener, characters
from runfold.ledger.operations.transition import Move
from runfold.ledger.run import Receipt
from runfold.workers.leases.deadline import in_time, judged, raise_judged
from runfold.workers.leases.heart import Heart

LINGER_SECONDS: Final = 0.001


class Writer:
    """Makes transitions under leases, one statement at a time; each caller gets its own answer.

    No beat follows a move that closes its lease, unless it fails. `is_working`: whether handlers
    work whose moves may come within a moment.
    """

    def __init__(self, ledger: Ledger, heart: Heart, is_working: Callable[[], bool]) -> None:
        self._ledger, self._heart = ledger, heart

        def linger() -> float:
            return LINGER_SECONDS if is_working() else 0.0

        self._batcher: Batcher[Move, Receipt | LedgerError] = Batcher(
            self._send, lambda move: characters(move.row.body), linger=linger
        )
        self._beginner: Batcher[Lease, Lease] = Batcher(self._beat, lambda _: 0, linger=linger)

    async def begin(self, lease: Lease) -> bool:
        """Record by a beat that an attempt begins; return whether it may.

        Raises DatabaseUnavailable when that is not known.
        """
        try:
            return not (await self._beginner.ask(lease, distinct=lease.run_id)).lost
        except LedgerError as error:
            raise_judged(error, has_content=False)

    def checked(self, command: Transition) -> Move:
        """Return the move of a command under its lease. Raises InvalidValue or PayloadTooLarge."""
        return Move(command.run, command.row(self._ledger.project.rules))

    async def move(self, move: Move) -> Receipt:
        """Make a move.

        Raises as `Ledger.transition` does, or DatabaseUnavailable when its outcome is not known.
        """
        # Judged here, not in `_send`: a statement that one move spoiled is sent again move by move.
        try:
            outcome = await self._batcher.ask(move, distinct=move.row.run_id)
        except LedgerError as error:
            raise_judged(error)
        if isinstance(outcome, Receipt):
            return outcome
        raise judged(outcome)

    def hand(self, move: Move, answer: Listener[Receipt | LedgerError]) -> None:
        """Make a move whose answer nothing waits for; `judged` tells what an error means."""
        self._batcher.hand(move, distinct=move.row.run_id, result=answer)

    async def _send(self, moves: Sequence[Move]) -> Sequence[Receipt | LedgerError]:
        closed = self._heart.remove([_lease(move) for move in moves if _closes(move)])
        outcomes: Sequence[Receipt | LedgerError] = ()
        try:
            sending = self._ledger.transitions.move(moves)
            outcomes = await in_time(self._ledger.settings.lease_ttl_seconds, sending)
        finally:  # what is not known to be closed is still held
            kept = {outcome.run_id for outcome in outcomes if isinstance(outcome, Receipt)}
            self._heart.restore(held for held in closed if held.lease.run_id not in kept)
        return outcomes

    async def _beat(self, leases: Sequence[Lease]) -> Sequence[Lease]:
        beating = self._ledger.heartbeat(leases)
        return await in_time(self._ledger.settings.lease_ttl_seconds, beating)


def _closes(move: Move) -> bool:
    return move.row.park is True or move.row.to_state not in HELD


def _lease(move: Move) -> Lease:
    assert isinstance(move.run, Lease)
    return move.run
