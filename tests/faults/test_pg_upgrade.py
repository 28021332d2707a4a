"""A move of the data to another cluster by pg_upgrade, as docs/howto/upgrade.md has it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from runfold.console.cli.kit import exits
from runfold.ledger import Ledger
from runfold.ledger.errors import FeedMoved
from runfold.ledger.postgres.embedded.postgres import EmbeddedPostgres
from runfold.ledger.postgres.embedded.programs import runnable_programs
from runfold.ledger.postgres.embedded.store import Store
from tests.support.console import Cli
from tests.support.databases import PROJECT, assert_consistent
from tests.support.feeding import Reader, assert_complete, stored
from tests.support.server_folder import open_folder


def upgraded(old_data: Path, home: Path) -> None:
    """Make a new cluster in `home` and move the data of the old one, which is stopped, to it."""
    store = Store(home, {}, ephemeral=False)
    store.make_home()
    store.complete()
    store.refresh()
    programs = runnable_programs(home, store.account)
    store.account.own(home)  # pg_upgrade writes in the folder where it runs
    where = [f"--old-datadir={old_data}", f"--new-datadir={store.data}", "--username=postgres"]
    bins = [f"--old-bindir={programs}", f"--new-bindir={programs}", f"--socketdir={home}"]
    store.run("pg_upgrade", *where, *bins, "--no-sync")


@pytest.mark.slow
async def test_a_ledger_lives_on_in_the_cluster_that_pg_upgrade_made(
    own_server: EmbeddedPostgres, own_ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    await own_ledger.submit_many([{"kind": "before"}] * 10)
    fresh, amid = Reader(own_ledger.pool), Reader(own_ledger.pool, limit=4)
    await amid.page()
    [lease] = await own_ledger.claim("w:1", ttl=600)
    await asyncio.to_thread(own_server.close)
    with open_folder() as home:
        await asyncio.to_thread(upgraded, own_server.log_dir.parent, home)
        with EmbeddedPostgres(home) as newer:
            async with Ledger.open(newer.url(), PROJECT) as there:
                amid.source = fresh.source = there.pool
                with pytest.raises(FeedMoved, match="projections rebase"):
                    await amid.drain()
                cli = Cli(newer.url(), capsys)
                await asyncio.to_thread(cli.ok, "projections", "rebase")
                [lease] = await there.heartbeat([lease])
                await there.complete(lease)
                for reader in (fresh, amid):
                    await reader.drain()
                    assert_complete(reader, await stored(there.pool))
            assert (await asyncio.to_thread(cli, "drift")).code == exits.OK
            assert (await asyncio.to_thread(cli, "doctor")).code == exits.OK
            await assert_consistent(newer.url())
