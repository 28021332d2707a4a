"""Checks of the server: its version, its encoding, its clock and its connections."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from runfold.console.cli.health.check import Check, Level
from runfold.console.cli.health.database_status import DatabaseStatus
from runfold.ledger.postgres.compatibility import FIXED_MINORS, OLDEST_SERVER
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.postgres.opening import Database

MAX_SKEW_SECONDS: Final = 2.0

SLOWER: Final = 0.1
"""The part by which the ledger's time is slower than a clock that was set back."""


def server(status: DatabaseStatus) -> Check:
    """Whether the server is recent enough, and has the fixes that matter."""
    version = f"PostgreSQL {status.server}"
    if not status.supported:
        return Check("server", Level.FAILED, f"{version}, {OLDEST_SERVER} or newer is needed")
    major, minor = map(int, status.server.split("."))
    fixed = FIXED_MINORS.get(major, 0)
    if minor < fixed:
        return Check(
            "server",
            Level.FAILED,
            f"{version} lacks a security fix (CVE-2026-6473): install {major}.{fixed} or newer",
        )
    if status.standby:
        return Check("server", Level.WARNING, f"{version}, a standby: it can only be read")
    return Check("server", Level.OK, version)


async def encoding(database: Database) -> Check:
    """Whether the database can hold every text."""
    (row,) = await fetch(database.pool, "SELECT current_setting('server_encoding') AS encoding")
    if row["encoding"] == "UTF8":
        return Check("encoding", Level.OK, "UTF8")
    return Check(
        "encoding",
        Level.FAILED,
        f"{row['encoding']}, UTF8 is needed: make a database WITH ENCODING 'UTF8'",
    )


async def clock(database: Database) -> Check:
    """Whether this machine's clock agrees with the database's."""
    began = time.monotonic()
    (row,) = await fetch(database.pool, "SELECT clock_timestamp() AS now")
    took = time.monotonic() - began
    skew = (datetime.now(UTC) - row["now"]).total_seconds() - took / 2
    detail = f"{skew * 1000:+,.0f} ms from the database's clock, which decides"
    return Check("clock", Level.OK if abs(skew) <= MAX_SKEW_SECONDS else Level.WARNING, detail)


_TIME: Final = """
SELECT extract(epoch FROM ledger.now() - ledger.clock())::float8 AS lead,
  extract(epoch FROM max(event.recorded_at) - ledger.now())::float8 AS behind
FROM ledger.newest_events(100) AS event
"""


async def clock_steps(database: Database) -> Check:
    """Whether the database's clock was set back behind what is recorded."""
    [row] = await fetch(database.pool, _TIME)
    behind, lead = row["behind"] or 0.0, row["lead"]
    if behind > MAX_SKEW_SECONDS:
        detail = (
            f"the newest event is {behind:,.0f} s in the future: the database's clock was set back "
            "and no reaper has noticed, so leases last longer: run `runfold reap`"
        )
        return Check("time", Level.FAILED, detail)
    if lead > MAX_SKEW_SECONDS:
        detail = (
            f"the database's clock was set back: the ledger's time is {lead:,.0f} s ahead of it, "
            f"and a tenth slower until both agree, in {lead / SLOWER / 3600:,.1f} h at most"
        )
        return Check("time", Level.WARNING, detail)
    return Check("time", Level.OK, "the database's clock is not behind its events")


_CONNECTIONS: Final = """
SELECT current_setting('max_connections')::int
    - coalesce(current_setting('reserved_connections', true)::int, 0)
    - current_setting('superuser_reserved_connections')::int AS server_limit,
  (SELECT sum(numbackends) FROM pg_stat_database)::int AS server_used,
  login.rolconnlimit AS login_limit, login.rolname AS login,
  (SELECT count(*) FROM pg_stat_activity WHERE usename = login.rolname) AS login_used
FROM pg_roles AS login WHERE login.rolname = current_user
"""


async def connections(database: Database, pool_size: int, *, listen: bool) -> Check:
    """Whether the server and the login allow the connections that a worker process takes."""
    (row,) = await fetch(database.pool, _CONNECTIONS)
    return connections_check(row, pool_size, listen=listen)


def connections_check(row: Mapping[str, Any], pool_size: int, *, listen: bool) -> Check:
    """Compare the connections of a worker process with the limits."""
    parts = {"pool": pool_size, "heartbeats": 1} | ({"wake-ups": 1} if listen else {})
    needed = sum(parts.values())
    named = ", ".join(f"{part} {count}" for part, count in parts.items())
    takes = f"a worker process takes up to {needed} ({named})"
    remedy = "raise the limit or lower RUNFOLD_POOL_SIZE"
    limit, used = row["login_limit"], row["login_used"]
    if 0 <= limit < needed:
        detail = f"{takes}, login {row['login']} may have {limit}: {remedy}"
        return Check("connections", Level.FAILED, detail)
    if 0 <= limit - used < needed:
        detail = f"{takes}, login {row['login']} has {used} of {limit}: {remedy}"
        return Check("connections", Level.WARNING, detail)
    left = row["server_limit"] - row["server_used"]
    if left < needed:
        detail = f"{takes}, {max(left, 0)} of the server's {row['server_limit']} are free: {remedy}"
        return Check("connections", Level.WARNING, detail)
    return Check("connections", Level.OK, f"{takes}; {left:,} are free")
