"""The transitions of a worker, many to a statement: what comes within a few milliseconds goes together."""

from __future__ import annotations

import asyncio
from typing import Final

from ledger import Lease, Ledger, Transition
from ledger.errors import LedgerError
from ledger.run import Receipt
from workers.heartbeat import Heart
from workers.patience import within

LINGER_SECONDS: Final = 0.001
BATCH: Final = 1_000
Waiting = tuple[Transition, "asyncio.Future[Receipt]"]


class Writer:
    """Sends transitions through `Ledger.transition_many`, one statement at a time; each caller gets its own answer."""

    def __init__(self, ledger: Ledger, heart: Heart) -> None:
        self._ledger, self._heart = ledger, heart
        self._waiting: list[Waiting] = []
        self._flushing: asyncio.Task[None] | None = None

    async def move(self, command: Transition) -> Receipt:
        """Make a transition; raises as `Ledger.transition` does, or DatabaseUnavailable when its outcome is not known."""
        answer: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self._waiting.append((command, answer))
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush())
        return await answer

    async def close(self, command: Transition) -> Receipt:
        """Make a transition that closes the lease; no beat follows it, unless it fails. Raises as `move` does."""
        assert isinstance(command.run, Lease)
        since = self._heart.let_go(command.run)
        try:
            return await self.move(command)
        except LedgerError:
            if since is not None:
                self._heart.take(command.run, since)
            raise

    async def _flush(self) -> None:
        await asyncio.sleep(LINGER_SECONDS)
        while self._waiting:
            batch = self._batch()
            try:
                moving = self._ledger.transition_many([command for command, _ in batch])
                outcomes = await within(self._ledger.settings.lease_ttl_seconds, moving)
            except Exception as error:
                for _, answer in batch:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            for (_, answer), outcome in zip(batch, outcomes, strict=True):
                if answer.done():  # whoever asked was cancelled
                    continue
                if isinstance(outcome, Receipt):
                    answer.set_result(outcome)
                else:
                    answer.set_exception(outcome)

    def _batch(self) -> list[Waiting]:
        """Take what waits, at most one transition of a run."""
        batch: dict[object, Waiting] = {}
        rest: list[Waiting] = []
        for one in self._waiting:
            run = one[0].run
            run_id = run.run_id if isinstance(run, Lease) else run
            if len(batch) < BATCH and run_id not in batch:
                batch[run_id] = one
            else:
                rest.append(one)
        self._waiting = rest
        return list(batch.values())
