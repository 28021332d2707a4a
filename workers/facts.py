"""What a handler may know of its run, in the loop and in a thread alike."""

from __future__ import annotations

from decimal import Decimal
from functools import cached_property
from typing import Any
from uuid import UUID

from runfold.ledger.errors import InvalidValue
from runfold.workers.journal.approvals import Approvals
from runfold.workers.journal.call import CURRENT
from runfold.workers.journal.fanout import Fanout
from runfold.workers.journal.journal import Journal
from runfold.workers.journal.tools import Tools
from runfold.workers.journal.waits import Waits


class Facts:
    """The run of a handler, and how its calls are made; the base of both contexts.

    The objects behind the calls are created with the first call: most runs make none.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal, self._recorder = journal, journal.recorder

    @property
    def run_id(self) -> UUID:
        """The run's id."""
        return self._journal.lease.run_id

    @property
    def kind(self) -> str:
        """The run's kind."""
        return self._journal.lease.kind

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        return self._journal.lease.attempt

    @property
    def key(self) -> str:
        """The idempotency key of the running step or tool, the same in every attempt."""
        called = CURRENT.get()
        if called is None:
            raise InvalidValue(
                "call",
                "ctx.key",
                "belongs to a step or a tool: read it within the function, as in"
                " ctx.tool('pay', lambda: pay(ctx.key))",
            )
        return called.key

    @property
    def cancelled(self) -> bool:
        """Whether the attempt has to end: cancelled, its lease lost, or its worker stopping."""
        return self._recorder.stopped is not None

    @property
    def log(self) -> Any:
        """A structlog logger bound to the run, its attempt and its token."""
        return self._recorder.log

    def cost(self, usd: float | Decimal = 0, steps: int = 0) -> None:
        """Add to the run's totals, with the event of the running step or tool, else with the next.

        Not again where an earlier attempt has been. Raises InvalidValue.
        """
        self._journal.cost(usd, steps)

    @cached_property
    def _tools(self) -> Tools:
        return Tools(self._journal)

    @cached_property
    def _approvals(self) -> Approvals:
        return Approvals(self._journal, self._tools)

    @cached_property
    def _waits(self) -> Waits:
        return Waits(self._journal, self._tools)

    @cached_property
    def _fanout(self) -> Fanout:
        return Fanout(self._journal, self._tools)
