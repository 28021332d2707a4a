"""The clock of a test's database, set as somebody sets the clock of a server."""

from __future__ import annotations

from datetime import datetime, timedelta

import asyncpg


async def set_clock(connection: asyncpg.Connection | asyncpg.Pool, off: timedelta) -> None:
    """Set the server's clock, as the ledger sees it, ahead of the real one by `off`."""
    await connection.execute(
        "CREATE OR REPLACE FUNCTION ledger.clock() RETURNS timestamptz LANGUAGE sql VOLATILE "
        "PARALLEL SAFE "
        f"AS $$ SELECT clock_timestamp() + '{off.total_seconds()} seconds'::interval $$"
    )


async def set_walking_clock(
    connection: asyncpg.Connection | asyncpg.Pool, at: datetime, step: timedelta
) -> None:
    """Have the ledger's clock show a time, and `step` more each time that it is read."""
    await connection.execute(
        "CREATE SEQUENCE ledger.looks_at_the_time MINVALUE 0 START 0;"
        "CREATE OR REPLACE FUNCTION ledger.clock() RETURNS timestamptz LANGUAGE sql VOLATILE "
        "PARALLEL SAFE "
        f"AS $$ SELECT '{at.isoformat()}'::timestamptz "
        f"+ '{step.total_seconds()} seconds'::interval * nextval('ledger.looks_at_the_time') $$"
    )


async def set_clock_of_ids(connection: asyncpg.Connection, at: datetime, step: timedelta) -> None:
    """Have the clock of run ids show a time, and `step` more each time that it is read."""
    await connection.execute(
        "CREATE SEQUENCE IF NOT EXISTS ledger.looks_at_the_clock MINVALUE 0 START 0;"
        "SELECT setval('ledger.looks_at_the_clock', 0, false);"
        "CREATE OR REPLACE FUNCTION ledger.uuid7() RETURNS uuid LANGUAGE sql VOLATILE AS $$ "
        "SELECT encode(substr(int8send((extract(epoch FROM "
        f"'{at.isoformat()}'::timestamptz + '{step.total_seconds()} seconds'::interval "
        "* nextval('ledger.looks_at_the_clock')) * 1000)::bigint), 3, 6) || '\\x7000'::bytea "
        "|| substr(uuid_send(gen_random_uuid()), 9, 8), 'hex')::uuid $$"
    )
