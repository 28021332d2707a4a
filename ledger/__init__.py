"""The run ledger: `async with Ledger.open() as ledger`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runfold.lazy import exported

if TYPE_CHECKING:
    from runfold.ledger.commands import Submit, Transition
    from runfold.ledger.errors import LedgerError
    from runfold.ledger.events import NoteAdded, UserEvent
    from runfold.ledger.ledger import Ledger
    from runfold.ledger.lifecycle import State
    from runfold.ledger.run import Lease, Receipt, Run, Submission
    from runfold.ledger.settings import default_worker_id

__all__ = [
    "Lease",
    "Ledger",
    "LedgerError",
    "NoteAdded",
    "Receipt",
    "Run",
    "State",
    "Submission",
    "Submit",
    "Transition",
    "UserEvent",
    "default_worker_id",
]

_HOMES: Final = {
    "runfold.ledger.commands": ("Submit", "Transition"),
    "runfold.ledger.errors": ("LedgerError",),
    "runfold.ledger.events": ("NoteAdded", "UserEvent"),
    "runfold.ledger.ledger": ("Ledger",),
    "runfold.ledger.lifecycle": ("State",),
    "runfold.ledger.run": ("Lease", "Receipt", "Run", "Submission"),
    "runfold.ledger.settings": ("default_worker_id",),
}

if not TYPE_CHECKING:  # hidden from type checkers, which would accept any name
    __getattr__ = exported(
        __name__, {name: home for home, names in _HOMES.items() for name in names}
    )


def __dir__() -> list[str]:
    """List what can be imported."""
    return list(__all__)
