"""Servers that lose what they had: a checkpoint goes on without a gap, or is refused by name."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import asyncpg
import psutil  # type: ignore[import-untyped]
import pytest

from runfold.ledger import Ledger, State
from runfold.ledger.errors import CheckpointUnknown, LeaseLost, RunNotFound
from runfold.ledger.postgres.embedded.postgres import EmbeddedPostgres
from runfold.ledger.postgres.embedded.store import Store
from runfold.ledger.postgres.urls import driver_url
from runfold.ledger.reading import feed
from tests.faults.test_database import gone
from tests.support.console import Cli
from tests.support.databases import PROJECT, assert_consistent
from tests.support.feeding import Reader, assert_complete, stored
from tests.support.server_folder import open_folder
from tests.support.waiting import until

UNUSED_IDS = 50
"""Transaction ids that are handed out and never written: a crash takes them back."""
NEXT_ID = "SELECT pg_snapshot_xmax(pg_current_snapshot())"
CRASHES = 5


@pytest.mark.slow
async def test_ids_that_a_crash_takes_back_hide_no_event(
    own_server: EmbeddedPostgres, own_ledger: Ledger
) -> None:
    await own_ledger.submit("before")
    live, at_now = Reader(own_ledger.pool), Reader(own_ledger.pool)
    for _ in range(CRASHES):
        async with Ledger.open(own_server.url(), PROJECT) as before:
            live.source = before.pool
            ahead = await unused_ids(before)
            await live.drain()
            at_now.checkpoint = await feed.now(before.pool)
        await gone(kill(own_server))
        await asyncio.to_thread(own_server.start)
        async with Ledger.open(own_server.url(), PROJECT) as after:
            if int(await after.pool.fetchval(NEXT_ID)) < ahead:
                break
    else:
        pytest.fail("no crash took ids back: each time somebody had written the log meanwhile")
    async with Ledger.open(own_server.url(), PROJECT) as after:
        made = await after.submit_many([{"kind": "after"}] * 2 * UNUSED_IDS)
        live.source = at_now.source = after.pool
        await live.drain()
        await at_now.drain()

        assert_complete(live, await stored(after.pool))
        assert {run_id for run_id, _ in at_now.keys} == {one.run_id for one in made}
    await assert_consistent(own_server.url())


async def unused_ids(ledger: Ledger) -> int:
    """Have the server hand out ids that it does not write down; return the next one."""
    background = "SELECT pid FROM pg_stat_activity WHERE backend_type <> 'client backend'"
    for row in await ledger.pool.fetch(background):
        psutil.Process(row["pid"]).suspend()  # they would write the log of what is rolled back
    for _ in range(UNUSED_IDS):
        async with ledger.pool.acquire() as connection:
            transaction = connection.transaction()
            await transaction.start()
            await connection.fetchval("SELECT pg_current_xact_id()")
            await transaction.rollback()
    return int(await ledger.pool.fetchval(NEXT_ID))


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in which servers are kept, short enough for a socket's path."""
    with open_folder() as made:
        yield made


@pytest.mark.slow
async def test_a_checkpoint_of_what_a_restore_took_back_is_refused_and_an_older_one_goes_on(
    own_server: EmbeddedPostgres, own_ledger: Ledger, folder: Path
) -> None:
    await own_ledger.submit_many([{"kind": "kept"}] * 5)
    older, newer, amid = (Reader(own_ledger.pool, limit) for limit in (100, 100, 3))
    for reader in (older, newer):
        await reader.drain()
    home = own_server.log_dir.parents[1]
    backup = folder / "home"
    postmaster = psutil.Process(await own_ledger.pool.fetchval("SELECT pg_backend_pid()")).parent()
    processes = [postmaster, *postmaster.children()]
    for process in processes:  # the copy is what a crash at this instant would leave
        process.suspend()
    shutil.copytree(home, backup, symlinks=True, ignore=shutil.ignore_patterns("*.pid", ".s.*"))
    own_by(home, backup)
    for process in processes:
        process.resume()
    await own_ledger.submit_many([{"kind": "lost"}] * 5)
    amid.checkpoint = older.checkpoint
    await newer.drain()
    await amid.page()
    assert amid.checkpoint.target is not None

    with EmbeddedPostgres(backup) as restored:
        async with Ledger.open(restored.url(), PROJECT) as there:
            for _ in range(3):  # ids and positions pass the ones that the checkpoint has seen
                await there.submit_many([{"kind": "new"}] * 5)
            older.source = newer.source = amid.source = there.pool
            await older.drain()
            assert_complete(older, await stored(there.pool))
            for reader in (newer, amid):
                with pytest.raises(CheckpointUnknown, match="older checkpoint"):
                    await reader.drain()


@pytest.fixture
def standby(own_server: EmbeddedPostgres, own_ledger: Ledger, folder: Path) -> Iterator[str]:
    """The URL of a server that follows the test's own one, asynchronously."""
    del own_ledger  # it has made the schema
    home = folder / "standby"
    store = Store(home, {}, ephemeral=False)
    store.make_home()
    store.data.mkdir(mode=0o700)
    store.account.own(store.data)
    copy = ["--pgdata=data", "--write-recovery-conf", "--checkpoint=fast", "--wal-method=stream"]
    store.run("pg_basebackup", *copy, f"--dbname={own_server.url()}")
    with EmbeddedPostgres(home) as following:
        yield following.url()


@pytest.mark.slow
async def test_what_a_promoted_standby_lacks_is_noticed_by_readers_and_workers(
    own_server: EmbeddedPostgres,
    own_ledger: Ledger,
    standby: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kept = await own_ledger.submit_many([{"kind": "kept"}] * 5)
    older, newer, amid = (Reader(own_ledger.pool, limit) for limit in (100, 100, 3))
    for reader in (older, newer):
        await reader.drain()
    following = await asyncpg.connect(driver_url(standby))
    await until(lambda: following.fetchval(_COUNT, 5))
    await assert_can_be_checked(Cli(standby, capsys))
    await following.execute("ALTER SYSTEM SET primary_conninfo = ''")
    await following.execute("SELECT pg_reload_conf()")
    await until(lambda: following.fetchval("SELECT count(*) = 0 FROM pg_stat_wal_receiver"))

    tail = await own_ledger.submit_many([{"kind": "lost"}] * 5)
    [lease] = await own_ledger.claim("w:old", kinds=["kept"])
    [gone_lease] = await own_ledger.claim("w:old", kinds=["lost"])
    amid.checkpoint = older.checkpoint
    await newer.drain()
    await amid.page()
    kill(own_server)
    await following.execute("SELECT pg_promote()")
    await until(lambda: following.fetchval("SELECT NOT pg_is_in_recovery()"))
    async with Ledger.open(standby, PROJECT) as there:
        newer.source = there.pool
        with pytest.raises(CheckpointUnknown):  # of a future that has not come here
            await newer.drain()
        for _ in range(3):  # ids and positions pass the ones that the checkpoints have seen
            await there.submit_many([{"kind": "new"}] * 5)
        [again] = await there.claim("w:new", kinds=["kept"])
        older.source = newer.source = amid.source = there.pool
        fresh = Reader(there.pool)
        for reader in (older, fresh):
            await reader.drain()
            assert_complete(reader, await stored(there.pool))
        for reader in (newer, amid):
            with pytest.raises(CheckpointUnknown, match=r"older checkpoint, or read again"):
                await reader.drain()

        assert (again.run_id, again.token) == (lease.run_id, lease.token)
        with pytest.raises(LeaseLost):
            await there.transition(lease, State.COMPLETED)
        with pytest.raises(RunNotFound):
            await there.transition(gone_lease, State.COMPLETED)
        assert {one.run_id for one in tail}.isdisjoint({key for key, _ in fresh.keys})
        assert {one.run_id for one in kept} <= {key for key, _ in fresh.keys}
    await following.close()
    await assert_consistent(standby)


async def assert_can_be_checked(standby: Cli) -> None:
    """Have a standby verified and examined: what needs a write is said to be left out."""
    verified = await asyncio.to_thread(standby.ok, "verify")
    assert "this check is not on record" in verified.err
    assert "this server is a standby" in verified.err
    examined = await asyncio.to_thread(lambda: standby("doctor", "--json").json)
    levels = {one["name"]: one["level"] for one in examined["checks"]}
    assert examined["healthy"]
    assert {name for name, level in levels.items() if level == "warning"} == {
        "server", "objects", "privileges",
    }  # fmt: skip


_COUNT = "SELECT count(*) = $1 FROM ledger.event"


def kill(server: EmbeddedPostgres) -> psutil.Process:
    """End every process of a server at once; return the first of them."""
    data = server.log_dir.parent
    postmaster = psutil.Process(int((data / "postmaster.pid").read_text().split()[0]))
    for process in [postmaster, *postmaster.children()]:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    return postmaster


def own_by(pattern: Path, tree: Path) -> None:
    """Have every file below `tree` belong to the owner of its original."""
    for copy in [tree, *tree.rglob("*")]:
        owner = (pattern / copy.relative_to(tree)).lstat()
        os.lchown(copy, owner.st_uid, owner.st_gid)
