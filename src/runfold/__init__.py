"""Runfold: an event-sourced run ledger on PostgreSQL.

What a program uses is here; the event models are in `runfold.events`, every error is in
`runfold.errors`, and what a projection is declared with in `runfold.projections`.
"""

from __future__ import annotations

from runfold.lazy import exported
from runfold.version import __version__

# Not imported from `typing`: every command waits for this, and Ctrl-C meanwhile shows a traceback.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from runfold.ledger.commands import Submit, Transition
    from runfold.ledger.errors import (
        AccessDenied,
        DatabaseUnavailable,
        DecisionRefused,
        DuplicateKey,
        IllegalTransition,
        InvalidValue,
        LeaseLost,
        LeaseRequired,
        LedgerError,
        PayloadTooLarge,
        RunNotFound,
        VersionConflict,
    )
    from runfold.ledger.ledger import Ledger
    from runfold.ledger.lifecycle import State
    from runfold.ledger.run import Lease, Receipt, Run, Submission
    from runfold.ledger.settings import default_worker_id
    from runfold.workers.backoff import Backoff
    from runfold.workers.blocking import BlockingContext
    from runfold.workers.context import Context
    from runfold.workers.errors import ChildFailed, StepError, ToolError, WaitTimedOut
    from runfold.workers.handlers import Handler, Handlers, handler
    from runfold.workers.journal.approvals import Approver, Decision, Lapsed
    from runfold.workers.outcomes import Cancel, Fail, Retry
    from runfold.workers.worker import Worker

__all__ = [
    "AccessDenied",
    "Approver",
    "Backoff",
    "BlockingContext",
    "Cancel",
    "ChildFailed",
    "Context",
    "DatabaseUnavailable",
    "Decision",
    "DecisionRefused",
    "DuplicateKey",
    "Fail",
    "Handler",
    "Handlers",
    "IllegalTransition",
    "InvalidValue",
    "Lapsed",
    "Lease",
    "LeaseLost",
    "LeaseRequired",
    "Ledger",
    "LedgerError",
    "PayloadTooLarge",
    "Receipt",
    "Retry",
    "Run",
    "RunNotFound",
    "State",
    "StepError",
    "Submission",
    "Submit",
    "ToolError",
    "Transition",
    "VersionConflict",
    "WaitTimedOut",
    "Worker",
    "__version__",
    "default_worker_id",
    "handler",
]

_HOMES = {
    "runfold.ledger.commands": ("Submit", "Transition"),
    "runfold.ledger.errors": (
        "AccessDenied",
        "DatabaseUnavailable",
        "DecisionRefused",
        "DuplicateKey",
        "IllegalTransition",
        "InvalidValue",
        "LeaseLost",
        "LeaseRequired",
        "LedgerError",
        "PayloadTooLarge",
        "RunNotFound",
        "VersionConflict",
    ),
    "runfold.ledger.ledger": ("Ledger",),
    "runfold.ledger.lifecycle": ("State",),
    "runfold.ledger.run": ("Lease", "Receipt", "Run", "Submission"),
    "runfold.ledger.settings": ("default_worker_id",),
    "runfold.workers.blocking": ("BlockingContext",),
    "runfold.workers.context": ("Context",),
    "runfold.workers.errors": ("ChildFailed", "StepError", "ToolError", "WaitTimedOut"),
    "runfold.workers.handlers": ("Handler", "Handlers", "handler"),
    "runfold.workers.backoff": ("Backoff",),
    "runfold.workers.journal.approvals": ("Approver", "Decision", "Lapsed"),
    "runfold.workers.outcomes": ("Cancel", "Fail", "Retry"),
    "runfold.workers.worker": ("Worker",),
}

if not TYPE_CHECKING:  # hidden from type checkers, which would accept any name
    __getattr__ = exported(
        __name__, {name: home for home, names in _HOMES.items() for name in names}
    )


def __dir__() -> list[str]:
    """List what can be imported."""
    return list(__all__)
