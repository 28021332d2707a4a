"""The run ledger: `async with Ledger.open() as ledger`."""

from runfold.ledger.commands import Submit, Transition
from runfold.ledger.ledger import Ledger
from runfold.ledger.lifecycle import State
from runfold.ledger.run import Lease, Receipt, Run, Submission
from runfold.ledger.settings import default_worker_id

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
