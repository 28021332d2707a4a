"""The run ledger: `async with Ledger.open() as ledger`."""

from ledger.commands import Submit, Transition
from ledger.identity import default_worker_id
from ledger.ledger import Ledger
from ledger.lifecycle import State
from ledger.run import Lease, Receipt, Run, Submission

__all__ = [
    "Lease",
    "Ledger",
    "Receipt",
    "Run",
    "State",
    "Submission",
    "Submit",
    "Transition",
    "default_worker_id",
]
