"""What a run spends: counted in the handler, recorded with an event."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from runfold.ledger.errors import InvalidValue
from runfold.ledger.events import NoteAdded
from runfold.ledger.validation import check_cost, check_int

_NOTHING: Final = Decimal(0)


class Meter:
    """What was spent and has not been recorded yet."""

    usd: Decimal = _NOTHING
    steps: int = 0

    def add(self, usd: float | Decimal, steps: int) -> None:
        """Add up; raises InvalidValue."""
        spent = check_cost("usd", usd)
        if spent < 0:
            raise InvalidValue("usd", usd, "must be 0 or more: what was spent is spent")
        self.usd, self.steps = self.usd + spent, self.steps + check_int("steps", steps, least=0)

    def empty(self) -> tuple[Decimal, int]:
        """Return the amounts so far, and begin anew."""
        spent = self.usd, self.steps
        self.usd, self.steps = _NOTHING, 0
        return spent

    def empty_to_note(self) -> NoteAdded | None:
        """Return the amounts so far as a note, and begin anew; None when nothing was spent."""
        usd, steps = self.empty()
        if not (usd or steps):
            return None
        return NoteAdded(
            name="spent",
            text="spent in no step or tool, before the attempt ended",
            cost_usd=usd or None,
            step_count=steps or None,
        )
