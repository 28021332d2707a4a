"""Plain functions on daemon threads: one that never returns does not keep the process alive."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(name: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in a thread and return its result; a cancelled call leaves it running."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def call() -> None:
        try:
            result = context.run(function, *args, **kwargs)
        except BaseException as error:  # any error belongs to the caller that waits
            outcome: tuple[Callable[..., None], object] = (future.set_exception, _raisable(error))
        else:
            outcome = (future.set_result, result)
        with suppress(RuntimeError):  # the loop has closed: nobody waits any more
            loop.call_soon_threadsafe(_settle, future, *outcome)

    threading.Thread(target=call, name=name, daemon=True).start()
    return await future


def _settle(future: asyncio.Future[T], settle: Callable[[object], None], value: object) -> None:
    if not future.done():
        settle(value)


def _raisable(error: BaseException) -> BaseException:
    # A future takes no StopIteration, and asyncio itself would end on the other two.
    if isinstance(error, StopIteration | SystemExit | KeyboardInterrupt):
        wrapped = RuntimeError(f"{type(error).__name__}: {error}")
        wrapped.__cause__ = error
        return wrapped
    return error
