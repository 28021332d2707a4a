"""What every change of the archive checks first: its words, and that no other is at work."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from runfold.ledger.errors import ArchiveRefused
from runfold.ledger.months import check_month
from runfold.ledger.postgres.connections import FAILURES, Pool
from runfold.ledger.postgres.errors import translated
from runfold.ledger.validation import check_actor, check_text

LOCK_KEY: Final = "hashtextextended('ledger.archive', 0)"
"""The advisory lock: exclusive for a command, shared by rebuilds that have months attached."""


def check_request(month: str, actor: str, reason: str | None) -> None:
    """Raise InvalidValue unless the month is one, and actor and reason are texts to keep."""
    check_month(month)
    check_actor(actor)
    if reason is not None:
        check_text("reason", reason, limit=2_000)


@asynccontextmanager
async def alone(pool: Pool, month: str) -> AsyncIterator[Any]:
    """Yield a connection while no other archive command and no rebuild is at work."""
    try:
        async with pool.acquire() as connection:
            if not await connection.fetchval(f"SELECT pg_try_advisory_lock({LOCK_KEY})"):
                raise ArchiveRefused(
                    month, ["a rebuild or another archive command is at work: wait for it"]
                )
            try:
                yield connection
            finally:
                await connection.execute(f"SELECT pg_advisory_unlock({LOCK_KEY})")
    except (*FAILURES, OSError) as error:
        raise translated(error) from error
