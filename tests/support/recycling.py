"""A database that serves one test after another, with connections that know its tables.

The first calls of a new connection cost a test more than all else: the server reads its catalogs
and compiles its functions anew. So a database is brought back to what it was, and the next test
gets it with the same connections. One that cannot be brought back is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

import asyncpg

from runfold.ledger import Ledger
from runfold.ledger.postgres.connections import FAILURES
from runfold.ledger.postgres.urls import driver_url
from runfold.ledger.settings import Settings
from tests.support.databases import PROJECT, assert_verified, copy_of, execute, with_database
from tests.support.keeping import AS_OPENED, KEEPER
from tests.support.restoring import Origin, Restorer, origin_of
from tests.support.waiting import BOUND

OWN_SESSIONS: Final = 2
"""The sessions of a database that no test has: one verifies, and one restores."""
UNUSABLE: Final = (*FAILURES, OSError)
"""What a connection that a test ended raises; TimeoutError, of a lock that stays, is an OSError."""
SETTINGS: Final = ("pool_size", "prepared_statements", "statement_seconds")
"""The settings that a pool is opened with."""
_PLANNED_ONCE: Final = {"plan_cache_mode": "force_generic_plan"}
"""For sessions that repeat few statements on small tables: to plan them takes most of the time."""
_SESSIONS: Final = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend'
"""


class Recycling:
    """Lends one database to one test after another."""

    def __init__(self, server_url: str, template: str) -> None:
        self._server_url, self._template = server_url, template
        self._opened = AsyncExitStack()
        self._idle: RecycledDatabase | None = None
        self._origin: Origin | None = None

    async def lend(self) -> RecycledDatabase:
        """Return a database like a new one."""
        lent, self._idle = self._idle, None
        return lent or await self._make()

    async def take_back(self, lent: RecycledDatabase) -> None:
        """Fail unless every project verifies; keep the database if it is what it was."""
        try:
            if await lent.verified_and_restored():
                self._idle = lent
        finally:
            if self._idle is None:
                await self.drop()

    async def drop(self) -> None:
        """Drop the database that was made last, if there is one."""
        self._idle = None
        await self._opened.aclose()

    async def _make(self) -> RecycledDatabase:
        await self.drop()
        name, make, drop = copy_of(self._template)
        await execute(self._server_url, make)
        self._opened.push_async_callback(execute, self._server_url, drop)
        url = with_database(self._server_url, name)
        self._opened.enter_context(KEEPER.connections(url))
        restoring = await asyncpg.connect(
            driver_url(url), command_timeout=BOUND, server_settings=_PLANNED_ONCE
        )
        self._opened.push_async_callback(restoring.close)
        self._origin = self._origin or await origin_of(restoring)
        restorer = Restorer(restoring, self._origin)
        await restorer.begin()
        verifying = await self._opened.enter_async_context(
            asyncpg.create_pool(
                driver_url(url),
                min_size=1,
                max_size=1,
                reset=_keep,
                connection_class=_Verifying,
                server_settings=_PLANNED_ONCE,
            )
        )
        ledger = await self._opened.enter_async_context(Ledger.open(url, PROJECT))
        made = RecycledDatabase(url, ledger, verifying, restorer)
        self._opened.push_async_callback(made.close)
        return made


class RecycledDatabase:
    """A database, and the connections that stay open from test to test."""

    def __init__(
        self, url: str, ledger: Ledger, verifying: asyncpg.Pool, restorer: Restorer
    ) -> None:
        self.url = url
        self._ledger, self._verifying, self._restorer = ledger, verifying, restorer
        self._beside: asyncpg.Connection | None = None

    async def connection(self) -> asyncpg.Connection:
        """Return a connection like a new one; it remembers no statement, whose tables may go."""
        if self._beside is None or self._beside.is_closed():
            self._beside = await asyncpg.connect(driver_url(self.url), statement_cache_size=0)
        return self._beside

    async def close(self) -> None:
        """Close the connection of the tests."""
        if self._beside is not None:
            await self._beside.close(timeout=BOUND)

    def ledger(self) -> Ledger:
        """Return a ledger that no test has used, over connections that others have."""
        known, settings = self._ledger, Settings.load()
        for name in SETTINGS:
            assert getattr(settings, name) == getattr(known.settings, name), (
                f"{name}: open your own"
            )
        return Ledger(known.pool, known.project_id, settings, self.url, known.project.speaker)

    async def verified_and_restored(self) -> bool:
        """Fail unless every project verifies, and return whether the database is what it was."""
        changes = await self._changes()
        if changes is None or not self._restorer.can_restore(changes):
            await self._verifying.expire_connections()  # its statements are of other tables
        await assert_verified(self._verifying)
        try:
            return changes is not None and await self._restorer.restored(changes)
        except UNUSABLE:
            return False

    async def _changes(self) -> Mapping[str, Any] | None:
        """Look at what became of the database; None if a session is open or its own was ended."""
        try:
            return await self._restorer.look() if await self._is_alone() else None
        except UNUSABLE:
            return None

    async def _is_alone(self) -> bool:
        """Bring the tests' sessions back to what they were; return whether there is no other."""
        pool = self._ledger.pool
        if pool.is_closing() or pool.get_idle_size() != pool.get_size():
            return False
        async with AsyncExitStack() as stack:
            for _ in range(pool.get_size()):
                connection = await stack.enter_async_context(pool.acquire())
                await connection.execute(AS_OPENED)
        used = pool.get_size() + KEEPER.count(self.url)
        if self._beside is not None and not self._beside.is_closed():
            if self._beside.is_in_transaction():
                return False
            await self._beside.reset()
            await self._beside.execute(AS_OPENED)
            used += 1
        sessions = await self._verifying.fetchval(_SESSIONS)
        return bool(sessions == OWN_SESSIONS + used)


class _Verifying(asyncpg.Connection):
    """A connection that is set to read every time once, as it verifies and does nothing else.

    To change how a type is read makes a connection forget its prepared statements.
    """

    __slots__ = ("_is_set",)

    async def set_type_codec(self, *args: Any, **more: Any) -> None:
        if not hasattr(self, "_is_set"):
            await super().set_type_codec(*args, **more)
            self._is_set = True

    async def reset_type_codec(self, *_: Any, **__: Any) -> None:
        pass


async def _keep(_: object) -> None:
    """Leave a connection as it is, as the ledger's own pool does."""
