"""How long a worker waits for an answer: a connection may stay open and never bring one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from runfold.ledger.errors import DatabaseUnavailable

T = TypeVar("T")


async def within(seconds: float, call: Awaitable[T]) -> T:
    """Give the call's result; raises DatabaseUnavailable when there is none in time. Whether it was done is not known then."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await call
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise DatabaseUnavailable("the server", f"no answer within {seconds:g} s") from error
