"""A server whose disk is full: workers wait, hold or give back, and go on when there is room."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import asyncpg
import pytest

from runfold.ledger import Ledger, names
from runfold.ledger.errors import DatabaseUnavailable
from tests.support.databases import PROJECT, assert_consistent, with_database
from tests.support.processes import assert_story, said, worker
from tests.support.server import Server
from tests.support.waiting import until
from tests.support.working import ended

RUNS = 6
FULL = "No space left on device"
ALL_HAVE_BEGUN = "SELECT count(*) = $1 FROM ledger.event WHERE type = 'step.completed'"


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of a few MB."""
    with tempfile.TemporaryDirectory(prefix="runfold-disk-", dir="/tmp") as folder:
        mount = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", folder]
        if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
            pytest.skip(
                "only root may mount a small file system to fill, and not in every container"
            )
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
async def on_small_disk(server: Server, template: str, small_disk: Path) -> AsyncIterator[str]:
    """The URL of a migrated database on the small disk."""
    admin = await asyncpg.connect(server.url)
    owner = os.stat(await admin.fetchval("SHOW data_directory"))
    os.chown(small_disk, owner.st_uid, owner.st_gid)
    name = f"small_{uuid.uuid4().hex[:12]}"
    await admin.execute(f"CREATE TABLESPACE {name} LOCATION '{small_disk}'")
    await admin.execute(
        f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy TABLESPACE {name}"
    )
    yield with_database(server.url, name)
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.execute(f"DROP TABLESPACE {name}")
    await admin.close()


def fill(disk: Path) -> Path:
    """Leave no room; return the file that takes it."""
    ballast = disk / "ballast"
    with suppress(OSError), ballast.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return ballast


async def use_up(ledger: Ledger) -> None:
    """Write until the pages have no room left either."""
    while True:
        await ledger.submit_many([{"kind": "nobody's", "input": "x" * 500}] * 100)


@pytest.mark.slow
async def test_a_full_disk_is_waited_for(
    on_small_disk: str, small_disk: Path, tmp_path: Path
) -> None:
    log, gate = tmp_path / "log", tmp_path / "gate"
    async with Ledger.open(on_small_disk, PROJECT) as ledger:
        runs = await ledger.submit_many([{"kind": "gated", "input": str(gate)}] * RUNS)
        with worker(on_small_disk, log=log):
            await until(lambda: ledger.pool.fetchval(ALL_HAVE_BEGUN, RUNS))
            ballast = fill(small_disk)

            async def cannot_write() -> bool:
                with pytest.raises(DatabaseUnavailable, match=FULL):
                    await use_up(ledger)
                failures = said(log, names.WRITE_POSTPONED) + said(log, names.HEARTBEAT_FAILED)
                return any(FULL in failure["reason"] for failure in failures)

            gate.touch()
            await until(cannot_write)
            await asyncio.to_thread(ballast.unlink)
            for run in runs:
                await ended(ledger, run.run_id)

        for run in runs:
            await assert_story(ledger, run)
    await assert_consistent(on_small_disk)
