"""A worker's calls of its database: each has a time limit, and an outage fails no run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final, NoReturn, TypeVar

from runfold.ledger.errors import (
    AccessDenied,
    ConfigurationError,
    DatabaseRefused,
    DatabaseUnavailable,
    InvalidValue,
    LedgerError,
    MissingPartition,
    NewerSchema,
    NotMigrated,
    UnknownProject,
    UnsupportedServer,
)

T = TypeVar("T")
RETRY_SECONDS: Final = 0.25
"""The pause before a call is made again."""
_DEPLOYMENT: Final = (
    AccessDenied, ConfigurationError, MissingPartition, NewerSchema, NotMigrated, UnknownProject,
    UnsupportedServer,
)  # fmt: skip
"""What rotated logins, an upgrade or a fail-over bring; it passes, or an operator ends it."""
_CONTENT: Final = "22"
"""The class of SQLSTATE that speaks of what was written. A limit of the server, 54, does not: no
payload comes near it, and a server that is out of transaction ids refuses every write with it."""


async def within(seconds: float, call: Awaitable[T], *, has_content: bool = True) -> T:
    """Return the call's result within `seconds`.

    Raises DatabaseUnavailable when there is no answer in time (the outcome is then unknown), and
    as `judged` does.
    """
    try:
        return await in_time(seconds, call)
    except LedgerError as error:
        raise_judged(error, has_content=has_content)


async def in_time(seconds: float, call: Awaitable[T]) -> T:
    """Return the call's result; raise DatabaseUnavailable without an answer within `seconds`."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await call
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise DatabaseUnavailable(None, f"no answer within {seconds:g} s") from error


def raise_judged(error: LedgerError, *, has_content: bool = True) -> NoReturn:
    """Raise the error of a call as what it means for a run, with the error itself as its cause."""
    meant = judged(error, has_content=has_content)
    if meant is error:  # which has a cause of its own
        raise error
    raise meant from error


def judged(error: LedgerError, *, has_content: bool = True) -> LedgerError:
    """Return the error of a call as what it means for a run.

    DatabaseUnavailable for whatever is the database's or the deployment's doing: no run may end
    for it. InvalidValue for content that the server cannot hold, unless the call has none.
    """
    if isinstance(error, DatabaseRefused):
        if has_content and error.sqlstate.startswith(_CONTENT):
            return InvalidValue("content", error.sqlstate, f"the server cannot hold it: {error}")
        return _away(error)
    return _away(error) if isinstance(error, _DEPLOYMENT) else error


def _away(error: LedgerError) -> DatabaseUnavailable:
    away = DatabaseUnavailable(None, str(error))
    away.__cause__ = error
    return away
