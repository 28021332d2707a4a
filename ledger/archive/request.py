"""What every change of the archive checks first: its words, and that no other is at work."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import asyncpg

from runfold.ledger.errors import ArchiveRefused
from runfold.ledger.months import check_month
from runfold.ledger.postgres.at_work import at_work
from runfold.ledger.postgres.connections import FAILURES, Pool
from runfold.ledger.postgres.errors import translated
from runfold.ledger.settings import Settings
from runfold.ledger.validation import check_actor, order_reason

ARCHIVE: Final = "archive"
"""What a command is at work on alone, and rebuilds that have months attached share."""


def check_request(month: str, actor: str, reason: str | None) -> str | None:
    """Return the reason without secrets; raise InvalidValue for what cannot be recorded."""
    check_month(month)
    check_actor(actor)
    return order_reason(reason, Settings.load().redaction())


@asynccontextmanager
async def alone(pool: Pool, month: str) -> AsyncIterator[Any]:
    """Yield a connection while no other archive command and no rebuild is at work."""
    try:
        async with pool.acquire() as connection, AsyncExitStack() as work:
            try:
                await work.enter_async_context(at_work(connection, ARCHIVE))
            except asyncpg.LockNotAvailableError as error:
                reason = f"a rebuild or another archive command is at work: {error}"
                raise ArchiveRefused(month, [reason]) from error
            yield connection
    except (*FAILURES, OSError) as error:
        raise translated(error) from error
