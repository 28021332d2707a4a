"""A kept connection is like a new one, or it is not lent again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from runfold.ledger.postgres.connections import connect, open_pool
from tests.support.console import execute
from tests.support.databases import name_of
from tests.support.keeping import KEEPER

LEFT: Final = (
    "SET search_path = public; CREATE TEMP TABLE own AS SELECT 1; LISTEN heard;"
    "SELECT pg_advisory_lock(1)"
)


async def leave_everything(url: str) -> int:
    """Leave what a session can; return its process of the server."""
    pool = await open_pool(url, 2)
    async with pool.acquire() as connection:
        await connection.execute(LEFT)
        pid = await connection.fetchval("SELECT pg_backend_pid()")
    await pool.close()
    return int(pid)


async def look(url: str, project: str = "") -> Mapping[str, Any]:
    """Return what a program finds in its session."""
    pool = await open_pool(url, 1, project=project)
    found = await pool.fetchrow(
        "SELECT pg_backend_pid() AS pid, current_setting('search_path') AS path,"
        " to_regclass('pg_temp.own') AS own, ARRAY(SELECT pg_listening_channels()) AS channels,"
        " (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())"
        " AS locks"
    )
    await pool.close()
    assert found is not None
    return dict(found)


async def break_off(url: str) -> int:
    """Close a connection within a transaction; return its process of the server."""
    connection = await connect(url, "runfold")
    await connection.execute("BEGIN")
    pid = await connection.fetchval("SELECT pg_backend_pid()")
    await connection.close()
    return int(pid)


def test_a_program_gets_the_connection_of_the_one_before_as_a_new_one(
    unverified_database: str,
) -> None:
    with KEEPER.programs():
        first = asyncio.run(leave_everything(unverified_database))
        found = asyncio.run(look(unverified_database))

    assert KEEPER.count(unverified_database) == 1
    assert tuple(found.values()) == (first, "pg_catalog, pg_temp", None, [], 0)


def test_a_connection_that_is_opened_otherwise_is_a_new_one(unverified_database: str) -> None:
    sign = "&" if "?" in unverified_database else "?"
    other = f"{unverified_database}{sign}options=-c%20work_mem%3D128"
    with KEEPER.programs():
        pids = {
            asyncio.run(look(unverified_database))["pid"],
            asyncio.run(look(unverified_database, "shop"))["pid"],
            asyncio.run(look(other))["pid"],
        }

    assert len(pids) == 3


def test_what_would_not_be_like_a_new_connection_is_not_lent(unverified_database: str) -> None:
    with KEEPER.programs():
        broken_off = asyncio.run(break_off(unverified_database))
        first = asyncio.run(look(unverified_database))["pid"]
        execute(unverified_database, "SELECT pg_terminate_backend($1, 5000)", first)
        second = asyncio.run(look(unverified_database))["pid"]
        name = name_of(unverified_database)
        execute(unverified_database, f"ALTER DATABASE {name} SET work_mem = 128")
        third = asyncio.run(look(unverified_database))["pid"]

    assert len({broken_off, first, second, third}) == 4
