"""Moves against the server: held snapshots, a month that comes and goes, restarts."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import asyncpg

from runfold.ledger import Ledger
from runfold.ledger.errors import ArchiveRefused, LockTimeout
from runfold.ledger.postgres.embedded.postgres import EmbeddedPostgres
from runfold.ledger.postgres.urls import driver_url
from tests.support.past_month import MONTH, in_that_month
from tests.support.processes import worker
from tests.support.waiting import BOUND

PAST: Final = "past"
"""The kind of the runs of the month that is over."""
PAST_RUNS: Final = 20


class Surroundings:
    """The server of a soak. Without `server`, somebody else's: it is not restarted."""

    def __init__(
        self, ledger: Ledger, url: str, folder: Path, server: EmbeddedPostgres | None = None
    ) -> None:
        self._ledger, self._url, self._server = ledger, url, server
        self.folder = folder
        self._holder: asyncpg.Connection[Any] | None = None
        self._is_detached = False

    async def prepare(self) -> None:
        """Have a month that is over, with ended runs that can be archived."""
        connection = await asyncpg.connect(driver_url(self._url))
        try:
            async with in_that_month(connection):
                for number in range(PAST_RUNS):
                    await self._ledger.submit(PAST, number)
                for lease in await self._ledger.claim("past:1", kinds=[PAST], limit=PAST_RUNS):
                    await self._ledger.complete(lease, output=lease.input)
        finally:
            await connection.close()
        with worker(self._url, "run", "--once", name="projections") as process:
            # No month goes before it is read.
            assert await asyncio.to_thread(process.wait, BOUND) == 0

    async def hold(self) -> None:
        """Hold a snapshot from which vacuum may take nothing away, or let go of it."""
        if self._holder is not None:
            await self._let_go()
            return
        self._holder = await asyncpg.connect(driver_url(self._url))
        await self._holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        await self._holder.fetch("SELECT count(*) FROM ledger.run_state")

    async def archive(self) -> None:
        """Take the month away, or bring it back; what stands in the way is no fault."""
        with suppress(ArchiveRefused, LockTimeout):
            if self._is_detached:
                await self._ledger.archive.attach(MONTH)
            else:
                await self._ledger.archive.export(MONTH, self.folder)
                await self._ledger.archive.detach(MONTH)
            self._is_detached = not self._is_detached

    async def restart(self) -> None:
        """Stop the server and start it again."""
        if self._server is None:
            return
        await self._let_go()
        await asyncio.to_thread(self._server.close)
        await asyncio.to_thread(self._server.start)

    async def settle(self) -> None:
        """Let go of the snapshot."""
        await self._let_go()

    async def _let_go(self) -> None:
        if self._holder is not None:
            self._holder.terminate()
            self._holder = None
