"""A kept connection is like a new one, or it is not lent again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
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


async def break_off(url: str) -> tuple[int, bool]:
    """Close a connection within a transaction.

    Return its process of the server, and whether a transaction was open before.
    """
    connection = await connect(url, "runfold")
    was_open = connection.is_in_transaction()
    await connection.execute("BEGIN")
    pid = await connection.fetchval("SELECT pg_backend_pid()")
    await connection.close()
    return int(pid), was_open


def test_a_program_gets_the_connection_of_the_one_before_as_a_new_one(
    unverified_database: str,
) -> None:
    with KEEPER.programs():
        first = asyncio.run(leave_everything(unverified_database))
        found = asyncio.run(look(unverified_database))

    assert KEEPER.count(unverified_database) == 1
    assert tuple(found.values()) == (first, "pg_catalog, pg_temp", None, [], 0)


def test_a_transaction_that_was_broken_off_is_not_handed_on(unverified_database: str) -> None:
    with KEEPER.programs():
        first, second = (asyncio.run(break_off(unverified_database)) for _ in range(2))

    assert first == second == (first[0], False)


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
        first = asyncio.run(look(unverified_database))["pid"]
        execute(unverified_database, "SELECT pg_terminate_backend($1, 5000)", first)
        second = asyncio.run(look(unverified_database))["pid"]
        name = name_of(unverified_database)
        execute(unverified_database, f"ALTER DATABASE {name} SET work_mem = 128")
        third = asyncio.run(look(unverified_database))["pid"]

    assert len({first, second, third}) == 3


def test_another_thread_has_a_loop_and_connections_of_its_own(unverified_database: str) -> None:
    with KEEPER.programs(), ThreadPoolExecutor(1) as thread:
        own = asyncio.run(look(unverified_database))["pid"]
        theirs = thread.submit(asyncio.run, look(unverified_database)).result()["pid"]
        nested = thread.submit(in_programs, unverified_database).result()["pid"]

    assert KEEPER.count(unverified_database) == 1
    assert len({own, theirs, nested}) == 3


def in_programs(url: str) -> Mapping[str, Any]:
    """Look as a program does that is called while another one runs."""
    with KEEPER.programs():
        return asyncio.run(look(url))
