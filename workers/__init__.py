"""Workers: `@handler("kind")` on a function, and `await Worker(ledger, handlers).run()`."""

from runfold.workers.blocking import BlockingContext
from runfold.workers.context import Context
from runfold.workers.errors import ChildFailed, StepError, ToolError, WaitTimedOut
from runfold.workers.handlers import Handler, Handlers, handler
from runfold.workers.journal.journal import Decision
from runfold.workers.outcomes import Backoff, Cancel, Fail, Retry
from runfold.workers.worker import Worker

__all__ = [
    "Backoff",
    "BlockingContext",
    "Cancel",
    "ChildFailed",
    "Context",
    "Decision",
    "Fail",
    "Handler",
    "Handlers",
    "Retry",
    "StepError",
    "ToolError",
    "WaitTimedOut",
    "Worker",
    "handler",
]
