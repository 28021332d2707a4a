"""A worker's calls of its database: each has a bound, and an outage is no run's fault."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final, TypeVar

from runfold.ledger.errors import (
    AccessDenied,
    ConfigurationError,
    DatabaseRefused,
    DatabaseUnavailable,
    LedgerError,
    MissingPartition,
    NewerSchema,
    NotMigrated,
    UnknownProject,
    UnsupportedServer,
)

T = TypeVar("T")
AGAIN_SECONDS: Final = 0.25
"""The pause before a call is made again."""
_DEPLOYMENT: Final = (
    AccessDenied, ConfigurationError, MissingPartition, NewerSchema, NotMigrated, UnknownProject,
    UnsupportedServer,
)  # fmt: skip
"""What rotated logins, an upgrade or a fail-over bring; it passes, or an operator ends it."""
_CONTENT: Final = frozenset({"22", "23", "54", "P0", "RF"})
"""Classes of SQLSTATE that speak of what was written: another try would end alike."""


async def within(seconds: float, call: Awaitable[T]) -> T:
    """Return the call's result within so many seconds.

    Raises DatabaseUnavailable when there is no answer in time (the outcome is then unknown), and
    for whatever is the database's or the deployment's doing: no run may end for it.
    """
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await call
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise DatabaseUnavailable("the server", f"no answer within {seconds:g} s") from error
    except LedgerError as error:
        if _is_outage(error):
            raise DatabaseUnavailable("the server", str(error)) from error
        raise


def _is_outage(error: LedgerError) -> bool:
    if isinstance(error, DatabaseRefused):
        return error.sqlstate[:2] not in _CONTENT
    return isinstance(error, _DEPLOYMENT)
