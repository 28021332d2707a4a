"""A rolling deployment: two versions of the code at work on one database, through its upgrade."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from runfold.ledger import Ledger, Submit
from runfold.ledger.events import (
    Event,
    LeaseExpired,
    RunFailed,
    RunRetried,
    RunSubmitted,
    SignalReceived,
)
from runfold.ledger.postgres import revisions
from runfold.ledger.reading import feed
from runfold.projections import Projection, install
from runfold.workers.duties.projector import Projector
from tests.support import forked
from tests.support.databases import PROJECT
from tests.support.newer_code import (
    INDEXES,
    NEWER,
    make_code_with_another_function,
    make_newer_code,
)
from tests.support.processes import ROOT, assert_story, worker
from tests.support.projections import read, sizes
from tests.support.waiting import until
from tests.support.working import LONG


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """The folder of a newer release whose schema works with this code."""
    return make_newer_code(tmp_path / "newer", before=revisions.head(), oldest=revisions.head())


@pytest.fixture
def contracted(tmp_path: Path) -> Path:
    """The folder of a newer release whose schema does not work with this code any more."""
    return make_newer_code(tmp_path / "contracted", before=revisions.head(), oldest=NEWER)


def runfold(url: str, *words: str, code: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line of this code, or of the code in a folder."""
    environment = {**os.environ, "RUNFOLD_URL": url, "RUNFOLD_PROJECT": PROJECT}
    if code:
        environment["PYTHONPATH"] = str(code)
    program = [sys.executable, "-m", "runfold.console.cli.entry", *words]
    return forked.run(program, env=environment, cwd=ROOT)


@pytest.mark.slow
async def test_workers_of_two_versions_work_through_an_upgrade(
    ledger: Ledger, database: str, newer: Path
) -> None:
    code = {"PYTHONPATH": str(newer)}
    runs: list[UUID] = []

    async def submit(count: int) -> None:
        made = await ledger.submit_many([Submit(kind="steps") for _ in range(count)])
        runs.extend(one.run_id for one in made)

    async def all_done() -> bool:
        counts = [(await ledger.get(run_id)).state for run_id in runs]
        return all(state == "completed" for state in counts)

    with ExitStack() as stack:
        await submit(12)
        stack.enter_context(worker(database, "--concurrency", "3", settings=LONG))
        await until(lambda: ledger.pool.fetchval(_AT_WORK))
        upgraded = await asyncio.to_thread(runfold, database, "db", "upgrade", code=newer)
        assert upgraded.returncode == 0, upgraded.stderr
        stack.enter_context(worker(database, "--concurrency", "3", settings={**LONG, **code}))
        stack.enter_context(worker(database, "--concurrency", "3", settings=LONG))
        while await ledger.pool.fetchval(_AT_WORK) < 3:
            await submit(6)
            await asyncio.sleep(1)
        await until(all_done)

    for run_id in runs:
        await assert_story(ledger, await ledger.get(run_id))
        history = await ledger.history(run_id)
        assert not [e for e in history if isinstance(e, RunFailed | RunRetried | LeaseExpired)]


@pytest.mark.slow
async def test_readers_of_older_code_go_on_when_events_gain_a_column(
    ledger: Ledger, database: str, newer: Path
) -> None:
    await install(ledger.pool, sizes())
    received: list[Event] = []
    applied: list[Event] = []

    async def apply(_: Any, events: Sequence[Event]) -> None:
        applied.extend(events)

    told = Projection("told", apply=apply)
    await install(ledger.pool, told)

    async def subscribe() -> None:
        async for event in ledger.subscribe(after=start):
            received.append(event)  # noqa: PERF401  it never ends

    async def reads(count: int) -> None:
        for _ in range(count):
            await read(ledger, (await ledger.submit("parse")).run_id, "1")

    async def all_read(total: int) -> bool:
        folded = await ledger.pool.fetchval("SELECT sum(reads) FROM projection.sizes")
        return folded == total and len(received) == len(applied) == 2 * total

    start = str(await feed.now(ledger.pool))
    tasks = [asyncio.create_task(subscribe())]
    tasks += [asyncio.create_task(Projector(ledger.pool, one).run()) for one in (sizes(), told)]
    try:
        for total in (10, 20):  # their statements are prepared
            await reads(10)
            await until(partial(all_read, total))
        upgraded = await asyncio.to_thread(runfold, database, "db", "upgrade", code=newer)
        assert upgraded.returncode == 0, upgraded.stderr
        await reads(10)
        await until(lambda: all_read(30) if not any(t.done() for t in tasks) else True)
        assert [task for task in tasks if task.done()] == []
        assert len(received) == len({(event.run_id, event.version) for event in received}) == 60
    finally:
        for task in tasks:
            task.cancel()


async def test_older_code_leaves_a_newer_schema_that_works_with_it_as_it_is(
    ledger: Ledger, database: str, newer: Path
) -> None:
    assert runfold(database, "db", "upgrade", code=newer).returncode == 0
    installed = await ledger.pool.fetchval(_INSTALLED)

    again = runfold(database, "db", "upgrade")
    doctor = runfold(database, "doctor", "--json")

    assert again.returncode == 0
    assert f"schema {NEWER} is newer than this program's" in again.stdout
    assert await ledger.pool.fetchval(_INSTALLED) == installed
    assert (doctor.returncode, f"works with {revisions.head()}" in doctor.stdout) == (0, True)
    assert runfold(database, "submit", "steps").returncode == 0
    run = await ledger.submit("steps")
    await ledger.signal(run.run_id, "go", 1, actor="ann")
    assert [type(e) for e in await ledger.history(run.run_id)] == [RunSubmitted, SignalReceived]


async def test_the_indexes_of_a_newer_release_are_built(
    ledger: Ledger, database: str, newer: Path
) -> None:
    await ledger.submit_many([Submit(kind="steps") for _ in range(20)])

    assert runfold(database, "db", "upgrade", code=newer).returncode == 0

    states = dict(await ledger.pool.fetch(_INDEXES, list(INDEXES)))
    assert states == {"event_newer": True, "run_newer": True}


async def test_a_release_of_functions_is_installed_beside_a_transaction_that_stays_open(
    ledger: Ledger, database: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    code = make_code_with_another_function(tmp_path / "newer", before=revisions.head())
    async with connection.transaction():
        await ledger.submit("steps", connection=connection)
        await connection.execute("SELECT FROM ledger.run, ledger.entry LIMIT 0")

        upgraded = await asyncio.to_thread(runfold, database, "db", "upgrade", code=code)

    assert upgraded.returncode == 0, upgraded.stderr
    body = await connection.fetchval(
        "SELECT prosrc FROM pg_proc WHERE oid = to_regproc('ledger.heartbeat')"
    )
    assert "-- newer" in body


async def test_code_that_a_schema_does_not_work_with_says_what_is_needed(
    ledger: Ledger, database: str, contracted: Path
) -> None:
    early = runfold(database, "runs", code=contracted)
    assert early.returncode != 0
    assert f"this code needs {NEWER}: run `runfold db upgrade`" in early.stderr

    assert runfold(database, "db", "upgrade", code=contracted).returncode == 0
    for words in (["runs"], ["db", "upgrade"]):
        late = runfold(database, *words)
        assert late.returncode != 0
        assert f"works with code from {NEWER} on" in late.stderr


_AT_WORK = "SELECT count(DISTINCT worker_id) FROM ledger.event WHERE type = 'lease.acquired'"
_INSTALLED = """
SELECT string_agg(p.proname || md5(p.prosrc) || pg_get_function_arguments(p.oid), ' ' ORDER BY 1)
FROM pg_proc AS p WHERE p.pronamespace = 'ledger'::regnamespace GROUP BY p.pronamespace
"""
_INDEXES = """
SELECT c.relname, i.indisvalid FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
WHERE c.relname = ANY ($1)
"""
