"""A month that is over, in which a test can have runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import asyncpg

from runfold.ledger.postgres import schema

THEN = (datetime.now(UTC).replace(day=1) - timedelta(days=70)).replace(day=10)
MONTH = f"{THEN:%Y-%m}"


async def make_month(connection: asyncpg.Connection, when: datetime) -> None:
    """Let runs be submitted in the month of a time that may be over."""
    table = f"event_{when:%Y_%m}"
    if await connection.fetchval("SELECT to_regclass($1)", f"ledger.{table}") is None:
        await connection.execute(
            f"CREATE TABLE ledger.{table} (LIKE ledger.event INCLUDING DEFAULTS INCLUDING "
            "CONSTRAINTS)"
        )
        month = "date_trunc('month', $1::timestamptz AT TIME ZONE 'UTC')"
        await connection.execute(f"SELECT ledger.attach_partition({month})", when)


@asynccontextmanager
async def in_that_month(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """Have the database's clock and new run ids in a month that is over."""
    past = (
        f"SELECT clock_timestamp() - interval '{(datetime.now(UTC) - THEN).total_seconds():.0f} s'"
    )
    id_ = (
        "SELECT encode(substr(int8send((extract(epoch "
        "FROM ledger.now()) * 1000)::bigint), 3, 6) || '\\x7000'::bytea || "
        "substr(uuid_send(gen_random_uuid()), 9, 8), 'hex')::uuid"
    )
    await make_month(connection, THEN)
    await connection.execute(
        "CREATE OR REPLACE FUNCTION ledger.clock() RETURNS timestamptz LANGUAGE sql VOLATILE AS "
        f"$${past}$$"
    )
    await connection.execute(
        f"CREATE OR REPLACE FUNCTION ledger.uuid7() RETURNS uuid LANGUAGE sql VOLATILE AS $${id_}$$"
    )
    try:
        yield
    finally:
        await connection.execute(schema.sql("values/clock"))
        await connection.execute(schema.sql("values/uuid7"))
