"""A database that was brought back is what a new one is; one that cannot be is not used again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Final

import asyncpg
import pytest

from runfold.ledger import Ledger
from runfold.ledger.events import NoteAdded
from runfold.ledger.postgres.urls import driver_url
from runfold.projections import Projection, count, install, of_run
from tests.support.clock import set_clock
from tests.support.keeping import end_tasks
from tests.support.logins import with_login
from tests.support.recycling import RecycledDatabase, Recycling
from tests.support.restoring import Restorer, origin_of
from tests.support.runs import claimed
from tests.support.server import Server
from tests.support.waiting import BOUND

KINDS: Final = Projection("kinds", key={"kind": of_run("kind")}, columns={"events": count()})
LASTING: Final = (
    "ALTER TABLE ledger.event DISABLE TRIGGER fold_run_state",
    "ALTER TABLE ledger.run_state ADD COLUMN more int",
    "ALTER TABLE ledger.run_state ALTER COLUMN priority SET DEFAULT 1",
    "ALTER TABLE ledger.run_state ALTER COLUMN priority SET STATISTICS 7",
    "ALTER TABLE ledger.run_state DISABLE ROW LEVEL SECURITY",
    "DROP INDEX ledger.run_claimable",
    "DROP FUNCTION ledger.clock CASCADE",
    "ALTER FUNCTION ledger.clock OWNER TO pg_monitor",
    "GRANT EXECUTE ON FUNCTION ledger.clock TO pg_monitor",
    "GRANT SELECT (run_id) ON ledger.event TO pg_monitor",
    "GRANT USAGE ON SCHEMA ledger TO pg_monitor",
    "DO $$ BEGIN EXECUTE 'GRANT CREATE ON DATABASE ' || current_database() || ' TO public'; END $$",
    "DO $$ BEGIN EXECUTE 'ALTER DATABASE ' || current_database() || ' SET work_mem = 64'; END $$",
    "COMMENT ON SCHEMA ledger IS 'of another release'",
    "CREATE POLICY more ON ledger.run_state USING (true)",
    "CREATE TYPE public.more AS ENUM ()",
    "CREATE PUBLICATION more FOR TABLE ledger.event",
)
"""What a test may do and nobody puts back."""


@pytest.fixture
async def recycling(server: Server, template: str) -> AsyncIterator[Recycling]:
    """Databases of this test's own."""
    made = Recycling(server.url, template)
    yield made
    await made.drop()


async def test_a_database_that_was_brought_back_is_what_a_new_one_is(recycling: Recycling) -> None:
    lent = await recycling.lend()
    new = await contents(lent.url)
    await use(lent)
    assert await contents(lent.url) != new

    await recycling.take_back(lent)

    assert await recycling.lend() is lent
    assert await contents(lent.url) == new


async def test_a_database_that_lastingly_changed_is_not_what_it_was(
    recycling: Recycling, subtests: pytest.Subtests
) -> None:
    connection = await asyncpg.connect(driver_url((await recycling.lend()).url))
    restorer = Restorer(connection, await origin_of(connection))
    await restorer.begin()
    for change in LASTING:
        with subtests.test(change):
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute(change)
            assert not await restorer.restored(await restorer.look())
            await transaction.rollback()
            assert await restorer.restored(await restorer.look())
    await connection.execute("CREATE TYPE public.more AS ENUM ()")
    assert not await restorer.restored(await restorer.look())
    await connection.execute("DROP TYPE public.more")
    assert await restorer.restored(await restorer.look())
    await connection.execute("ANALYZE ledger.run_state")  # which no rollback undoes
    assert not await restorer.restored(await restorer.look())
    await connection.close()


async def test_a_database_is_not_lent_again_while_somebody_is_connected(
    recycling: Recycling,
) -> None:
    lent = await recycling.lend()
    connection = await asyncpg.connect(driver_url(lent.url))

    await recycling.take_back(lent)

    assert await recycling.lend() is not lent
    await connection.close()


async def test_the_connection_of_a_test_is_like_a_new_one_for_the_next(
    recycling: Recycling,
) -> None:
    lent = await recycling.lend()
    connection = await lent.connection()
    await connection.execute("SET search_path = public; CREATE TEMP TABLE own AS SELECT 1")
    await connection.execute("SELECT pg_advisory_lock(1)")
    await connection.add_listener("heard", print)

    await recycling.take_back(lent)

    assert await recycling.lend() is lent
    assert await lent.connection() is connection
    [left] = await connection.fetch(
        "SELECT current_setting('search_path') AS path, to_regclass('pg_temp.own') AS own,"
        " ARRAY(SELECT pg_listening_channels()) AS channels,"
        " (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())"
        " AS locks"
    )
    assert tuple(left) == ('"$user", public', None, [], 0)


async def test_a_database_is_not_lent_again_while_a_transaction_of_its_test_is_open(
    recycling: Recycling,
) -> None:
    lent = await recycling.lend()
    await (await lent.connection()).execute("BEGIN")

    await recycling.take_back(lent)

    assert await recycling.lend() is not lent


async def test_a_ledger_that_does_not_verify_fails_its_test(recycling: Recycling) -> None:
    lent = await recycling.lend()
    await claimed(lent.ledger())
    await lent.ledger().pool.execute("UPDATE ledger.run_state SET step_count = 9")

    with pytest.raises(AssertionError):
        await recycling.take_back(lent)

    assert await recycling.lend() is not lent


async def test_a_database_whose_tables_grew_much_is_not_lent_again(recycling: Recycling) -> None:
    lent = await recycling.lend()
    await lent.ledger().submit_many([{"kind": "parse"}] * 3_000)

    await recycling.take_back(lent)

    assert await recycling.lend() is not lent


async def test_a_ledger_is_lent_for_no_setting_that_its_pool_was_not_opened_with(
    recycling: Recycling, monkeypatch: pytest.MonkeyPatch
) -> None:
    lent = await recycling.lend()
    monkeypatch.setenv("RUNFOLD_POOL_SIZE", "3")

    with pytest.raises(AssertionError, match="pool_size"):
        lent.ledger()


async def test_a_task_that_begins_when_another_is_cancelled_ends_with_it() -> None:
    late: list[asyncio.Task[None]] = []

    async def first() -> None:
        try:
            await asyncio.sleep(BOUND)
        finally:
            late.append(asyncio.create_task(asyncio.sleep(BOUND)))

    begun = asyncio.create_task(first())
    await asyncio.sleep(0)  # in which it begins

    await end_tasks()

    assert begun.cancelled()
    assert late[0].cancelled()


async def use(lent: RecycledDatabase) -> None:
    """Do what tests do: write rows of all sorts, move the clock, install a projection."""
    ledger = lent.ledger()
    lease = await claimed(ledger, input={"a": 1}, key="key", tags=["tag"])
    await ledger.append(lease, NoteAdded(text="note"))
    await ledger.limit_kind("parse", 3)
    await ledger.schedule("nightly", "parse", cron="0 3 * * *")
    await ledger.webhooks.add("https://example.com", events=["run.failed"])
    await ledger.archive.hold("2026-01", reason="a reason")
    async with Ledger.open(lent.url, "other", create_project=True) as other:
        await other.submit("parse")
    async with with_login(lent.url, "runfold_worker", rights=["work"]):
        pass
    await install(ledger.pool, KINDS)
    await ledger.pool.execute("CREATE TEMP TABLE own AS SELECT 1")
    await set_clock(ledger.pool, timedelta(hours=1))
    await ledger.pool.execute("SELECT pg_advisory_lock(1); SET search_path = public")


async def contents(url: str) -> dict[str, Any]:
    """Return the rows of every table, the sequences, and the definitions of all functions."""
    connection = await asyncpg.connect(driver_url(url))
    try:
        relations = await connection.fetch(
            "SELECT oid::regclass::text AS name FROM pg_class WHERE relkind = 'r'"
            " AND relnamespace::regnamespace::text !~ '^pg_|^information_schema$'"
        )
        rows = {
            name: await connection.fetchval(
                f"SELECT array_agg(of::text ORDER BY of::text) FROM {name} AS of"
            )
            for (name,) in relations
        }
        functions = await connection.fetchval(
            "SELECT array_agg((pg_get_functiondef(oid), proacl)::text ORDER BY oid) FROM pg_proc"
            " WHERE pronamespace = 'ledger'::regnamespace AND prokind = 'f'"
        )
        sequences = await connection.fetchval(
            "SELECT array_agg(sequence::text ORDER BY sequencename) FROM pg_sequences AS sequence"
        )
        return {**rows, "functions": functions, "sequences": sequences}
    finally:
        await connection.close()
