"""The clock of a test's database, set as somebody sets the clock of a server."""

from __future__ import annotations

from datetime import timedelta

import asyncpg


async def set_clock(connection: asyncpg.Connection, off: timedelta) -> None:
    """Have the server's clock, as the ledger sees it, so much ahead of the real one."""
    await connection.execute(
        "CREATE OR REPLACE FUNCTION ledger.clock() RETURNS timestamptz LANGUAGE sql VOLATILE "
        "PARALLEL SAFE "
        f"AS $$ SELECT clock_timestamp() + '{off.total_seconds()} seconds'::interval $$"
    )
