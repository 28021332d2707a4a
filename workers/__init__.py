"""Workers: `@handler("kind")` on a function, and `await Worker(ledger, handlers).run()`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runfold.lazy import exported

if TYPE_CHECKING:
    from runfold.workers.backoff import Backoff
    from runfold.workers.blocking import BlockingContext
    from runfold.workers.context import Context
    from runfold.workers.errors import ChildFailed, StepError, ToolError, WaitTimedOut
    from runfold.workers.handlers import Handler, Handlers, handler
    from runfold.workers.journal.approvals import Approver, Decision, Lapsed
    from runfold.workers.outcomes import Cancel, Fail, Retry
    from runfold.workers.worker import Worker

__all__ = [
    "Approver",
    "Backoff",
    "BlockingContext",
    "Cancel",
    "ChildFailed",
    "Context",
    "Decision",
    "Fail",
    "Handler",
    "Handlers",
    "Lapsed",
    "Retry",
    "StepError",
    "ToolError",
    "WaitTimedOut",
    "Worker",
    "handler",
]

_HOMES: Final = {
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
