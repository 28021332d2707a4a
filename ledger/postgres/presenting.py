"""Statements under an API token: its credential and its rights, on anybody's connection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import asyncpg

RELEASE_SECONDS: Final = 2.0
_PRESENT: Final = (
    "SELECT set_config('runfold.token', $1, true), set_config('runfold.project', $2, true)"
)


class Presenting:
    """Runs each statement in a transaction of its own in which the token's secret is presented.

    The setting ends with the transaction, however that ends: no connection can carry it to the next
    caller, not even through a pooler that changes connections between transactions.
    """

    def __init__(self, pool: asyncpg.Pool[Any], secret: str, project: str) -> None:
        """Present a secret for statements most of which are about a project."""
        self._pool, self._presented = pool, (secret, project)

    async def rows(self, sql: str, args: Sequence[Any]) -> Sequence[Mapping[str, Any]]:
        """Run one statement and return its rows."""
        connection = await self._pool.acquire()
        try:
            async with connection.transaction():
                await connection.execute(_PRESENT, *self._presented)
                return await connection.fetch(sql, *args)
        finally:
            # A cancelled caller waits for the server's answer; a silent one loses the connection.
            with suppress(TimeoutError):
                await self._pool.release(connection, timeout=RELEASE_SECONDS)
