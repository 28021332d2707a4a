"""Plain functions of handlers on daemon threads, which may fork."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from runfold.ledger import threads
from runfold.workers import forked_child

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(name: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in a thread, as `ledger.threads` does; a process that it forks ends there."""
    home = os.getpid()

    def call() -> T:
        try:
            return function(*args, **kwargs)
        finally:
            if os.getpid() != home:
                forked_child.end()

    return await threads.in_thread(name, call)
