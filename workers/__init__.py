"""Workers: `@handler("kind")` on a function, and `await Worker(ledger, handlers).run()`."""

from workers.blocking import BlockingContext
from workers.context import Context
from workers.errors import ChildFailed, StepFailed, ToolFailed, WaitTimedOut
from workers.handlers import Handler, Handlers, handler
from workers.journal import Decision
from workers.retry import Backoff, Cancel, Fail, Retry
from workers.worker import Worker

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
    "StepFailed",
    "ToolFailed",
    "WaitTimedOut",
    "Worker",
    "handler",
]
