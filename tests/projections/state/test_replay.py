"""Replay: the state is rebuilt beside the live one, under writers and through kills."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from runfold.console.cli.kit import exits
from runfold.ledger import Ledger, State
from runfold.ledger.errors import BeforeFirstEvent, FutureInstant, LockTimeout
from runfold.ledger.events import NoteAdded
from runfold.ledger.postgres import locks
from runfold.ledger.postgres.urls import driver_url
from runfold.projections.errors import RebuildFailed, RebuildRunning
from runfold.projections.rebuild import Rebuild
from runfold.projections.rebuild_plan import RebuildProgress
from runfold.projections.state.repair import REPAIRED
from runfold.projections.state.replay import Replayed, drop_replaced, plan, replay, replay_until
from tests.support.console import Cli, execute
from tests.support.databases import PROJECT
from tests.support.runs import claimed, newest, types
from tests.support.waiting import until


@pytest.fixture
async def mallory(unverified_database: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A superuser's connection to a database whose state may be damaged as one likes."""
    connection = await asyncpg.connect(driver_url(unverified_database))
    yield connection
    await connection.close()


@pytest.fixture
async def ledger(unverified_database: str) -> AsyncIterator[Ledger]:
    """The ledger of that database."""
    async with Ledger.open(unverified_database, PROJECT) as opened:
        yield opened


async def fleet(ledger: Ledger, runs: int = 60) -> list[UUID]:
    """Submit runs and move some of them along."""
    made = await ledger.submit_many([{"kind": "parse", "priority": n % 3} for n in range(runs)])
    for lease in await ledger.claim("w:1", limit=runs // 2):
        await ledger.heartbeat([lease])
        if lease.run_id.int % 2:
            await ledger.transition(lease, State.COMPLETED, cost_usd_delta=0.5)
    return [one.run_id for one in made]


async def replayed(ledger: Ledger, **given: Any) -> Replayed:
    """Replay, in small ranges."""
    return await replay(ledger, actor="ann", reason="a test", **{"events_a_range": 10, **given})


async def tables(connection: asyncpg.Connection[Any]) -> set[str]:
    """Name the tables that rebuilds made."""
    rows = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relname LIKE 'rebuild\\_%\\_of\\_%' AND relkind = 'r'"
    )
    return {f"ledger.{row['relname']}" for row in rows}


async def test_a_replay_of_a_sound_state_changes_nothing_and_leaves_nothing(
    ledger: Ledger, mallory: asyncpg.Connection[Any]
) -> None:
    await fleet(ledger)
    before = await mallory.fetch("SELECT ctid, * FROM ledger.run_state ORDER BY run_id")
    told: list[RebuildProgress] = []

    done = await replayed(ledger, on_progress=told.append)

    events = await mallory.fetchval("SELECT count(*) FROM ledger.event")
    assert (done.progress.rows, done.progress.events, done.wrong, done.kept_in, done.bad) == (
        60,
        events,
        0,
        None,
        [],
    )
    assert done.progress.ranges > 5
    assert max(progress.done for progress in told) == done.progress.ranges
    assert told[-1].events_per_second > 0
    assert await mallory.fetch("SELECT ctid, * FROM ledger.run_state ORDER BY run_id") == before
    assert await tables(mallory) == set()


async def test_what_is_wrong_is_exchanged_noted_and_kept_until_told(
    ledger: Ledger, mallory: asyncpg.Connection[Any]
) -> None:
    runs = await fleet(ledger)
    damaged, lost = runs[7], runs[11]
    lost_at = (await ledger.get(lost)).version
    await mallory.execute("UPDATE ledger.run_state SET priority = 99 WHERE run_id = $1", damaged)
    await mallory.execute("DELETE FROM ledger.run_state WHERE run_id = $1", lost)

    done = await replayed(ledger)

    assert done.wrong == 2
    assert [
        row["run_id"]
        for row in await mallory.fetch(f"SELECT * FROM {done.kept_in} WHERE priority = 99")
    ] == [damaged]
    assert (await ledger.get(lost)).version == lost_at + 1
    assert (await newest(ledger, damaged, NoteAdded)).name == REPAIRED
    assert (await ledger.verify()).ok
    assert (await replayed(ledger)).wrong == 0
    assert await tables(mallory) == {done.kept_in}
    assert await drop_replaced(ledger) == [done.kept_in]
    assert await tables(mallory) == set()
    assert (await ledger.verify()).ok


async def test_a_state_that_was_lost_as_a_whole_comes_back(
    ledger: Ledger, mallory: asyncpg.Connection[Any]
) -> None:
    await fleet(ledger)
    await mallory.execute("DELETE FROM ledger.run_state")

    assert (await replayed(ledger)).wrong == 60
    assert (await ledger.verify()).ok


async def test_names_indexes_rights_and_the_view_outlive_a_replay(
    ledger: Ledger, mallory: asyncpg.Connection[Any]
) -> None:
    shape = """
        SELECT c.oid, c.relname, c.relacl::text, c.reloptions::text,
          (SELECT array_agg(i.indexrelid ORDER BY 1) FROM pg_index AS i
           WHERE i.indrelid = c.oid)::text
        FROM pg_class AS c WHERE c.oid IN ('ledger.run_state'::regclass, 'ledger.run'::regclass)
    """
    await fleet(ledger)
    before = await mallory.fetch(shape)
    await mallory.execute("UPDATE ledger.run_state SET priority = 99")

    await replayed(ledger)

    assert await mallory.fetch(shape) == before


async def test_writers_go_on_and_nothing_they_do_is_lost(
    ledger: Ledger, mallory: asyncpg.Connection[Any]
) -> None:
    runs = await fleet(ledger)
    stop = asyncio.Event()
    finished: list[UUID] = []

    async def work(number: int) -> None:
        while not stop.is_set():
            await ledger.submit("parse")
            for lease in await ledger.claim(f"w:{number}", limit=2):
                await ledger.heartbeat([lease])
                await ledger.transition(lease, State.COMPLETED)
                finished.append(lease.run_id)

    writers = [asyncio.create_task(work(number)) for number in range(2)]
    try:
        for _ in range(3):
            here = len(finished)
            await mallory.execute(
                "UPDATE ledger.run_state SET priority = 77 WHERE run_id = ANY ($1)", runs[:20]
            )
            done = await replayed(ledger, events_a_range=200)
            assert done.wrong == 20
            await until(lambda seen=here: len(finished) > seen + 5)  # type: ignore[misc]
    finally:
        stop.set()
        await asyncio.gather(*writers)

    await replayed(ledger, events_a_range=200)
    assert (await ledger.verify()).ok
    for run_id in finished:
        kinds = [type_ for type_ in await types(ledger, run_id) if type_ != "note.added"]
        assert kinds[-1] == "run.completed"


async def test_the_state_as_of_an_instant_is_built_beside_the_live_one(
    ledger: Ledger, mallory: asyncpg.Connection[Any]
) -> None:
    await fleet(ledger, 20)
    instant = await mallory.fetchval("SELECT clock_timestamp()")
    then = await mallory.fetch("SELECT * FROM ledger.run_state ORDER BY run_id")
    await fleet(ledger, 20)

    done = await replay_until(ledger, instant, events_a_range=10)

    assert await mallory.fetch(f"SELECT * FROM {done.kept_in} ORDER BY run_id") == then
    assert (await ledger.verify()).ok
    with pytest.raises(FutureInstant):
        await replay_until(ledger, datetime(2099, 1, 1, tzinfo=UTC))
    with pytest.raises(BeforeFirstEvent):
        await replay_until(ledger, datetime(2020, 1, 1, tzinfo=UTC))
    assert await tables(mallory) == {done.kept_in}


async def test_a_run_that_cannot_be_folded_is_set_apart_or_stops_a_strict_replay(
    ledger: Ledger, mallory: asyncpg.Connection[Any]
) -> None:
    runs = await fleet(ledger)
    bad = runs[23]
    await mallory.execute(
        "SET session_replication_role = replica; "
        "ALTER TABLE ledger.event DISABLE TRIGGER refuse_change"
    )
    for row in await mallory.fetch(
        "SELECT relid::regclass::text AS leaf FROM pg_partition_tree('ledger.event') WHERE isleaf"
    ):
        await mallory.execute(f"ALTER TABLE {row['leaf']} DISABLE TRIGGER refuse_change")
    await mallory.execute(
        "UPDATE ledger.event SET kind = NULL WHERE run_id = $1 AND version = 1", bad
    )
    await mallory.execute("UPDATE ledger.run_state SET priority = 99 WHERE run_id = $1", runs[22])

    with pytest.raises(RebuildFailed) as stopped:
        await replayed(ledger, strict=True, events_a_range=1_000)
    done = await replayed(ledger, events_a_range=1_000)

    assert stopped.value.run_id == bad
    assert done.resumed
    assert [one.run_id for one in done.bad] == [bad]
    assert "kind" in done.bad[0].error
    assert (done.progress.rows, done.progress.errors, done.wrong) == (59, 1, 1)


@pytest.mark.slow
async def test_one_process_at_a_time_works_on_a_rebuild(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fleet(ledger, 5)
    async with Rebuild.begin(ledger.pool, plan(PROJECT)):
        with pytest.raises(RebuildRunning):
            await replayed(ledger)
    assert (await replayed(ledger)).resumed


async def test_rows_that_stay_locked_are_named_after_bounded_tries(
    ledger: Ledger, mallory: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "LOCK_TIMEOUT", "20ms")
    monkeypatch.setattr(locks, "TRIES", 2)
    runs = await fleet(ledger, 5)
    await mallory.execute("UPDATE ledger.run_state SET priority = 99 WHERE run_id = $1", runs[0])

    async with mallory.transaction():
        await mallory.execute("SELECT FROM ledger.run_state FOR UPDATE")
        with pytest.raises(LockTimeout):
            await replayed(ledger)

    done = await replayed(ledger)
    assert (done.resumed, done.wrong) == (True, 1)
    assert (await ledger.verify()).ok


KILLED = """
import asyncio, sys
from runfold.ledger import Ledger
from runfold.projections.state.replay import replay

async def main():
    async with Ledger.open(sys.argv[1], "test") as ledger:
        await replay(ledger, actor="ann", reason="r", connections=1, events_a_range=10)

asyncio.run(main())
"""


async def test_a_killed_replay_is_resumed_where_it_was(
    ledger: Ledger, mallory: asyncpg.Connection[Any], unverified_database: str
) -> None:
    runs = await fleet(ledger)
    await mallory.execute("UPDATE ledger.run_state SET priority = 99 WHERE run_id = $1", runs[-1])
    done_at = (
        "SELECT first, done_at FROM ledger.rebuild_range WHERE done_at IS NOT NULL ORDER BY first"
    )
    # The third range is filled but cannot be marked as done while somebody holds the lock.
    await mallory.execute("""
        CREATE FUNCTION public.hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          IF (SELECT count(*) FROM ledger.rebuild_range WHERE done_at IS NOT NULL) >= 3 THEN
            PERFORM pg_advisory_xact_lock(4711);
          END IF;
          RETURN NULL; END $$
    """)
    await mallory.execute(
        "CREATE TRIGGER hold AFTER UPDATE ON ledger.rebuild_range "
        "FOR EACH STATEMENT EXECUTE FUNCTION public.hold()"
    )
    await mallory.execute("SELECT pg_advisory_lock(4711)")

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED, unverified_database
    )
    waits = (
        "SELECT EXISTS (SELECT FROM pg_locks "
        "WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted)"
    )
    await until(lambda: mallory.fetchval(waits))
    process.send_signal(signal.SIGKILL)
    await process.wait()
    await mallory.execute("SELECT pg_advisory_unlock(4711)")
    await mallory.execute("DROP TRIGGER hold ON ledger.rebuild_range")
    before = await mallory.fetch(done_at)

    done = await replayed(ledger)

    assert 0 < len(before) < done.progress.ranges
    assert done.resumed
    rows = await mallory.fetch(done_at)
    assert [row for row in rows if row in before] == before
    assert (done.progress.rows, done.wrong) == (60, 1)
    assert (await ledger.verify()).ok


async def test_projects_are_rebuilt_apart(ledger: Ledger, unverified_database: str) -> None:
    await claimed(ledger)
    async with Ledger.open(unverified_database, "other", create_project=True) as other:
        await other.submit_many([{"kind": "x"} for _ in range(7)])

        assert (await replayed(ledger)).progress.rows == 1
        assert (await replay(other, actor="a", reason="r")).progress.rows == 7


# -- the command -----------------------------------------------------------------------


def test_the_command_rebuilds_compares_and_drops(
    unverified_database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = Cli(unverified_database, capsys)
    run_id = cli.submitted()
    execute(cli.url, "UPDATE ledger.run_state SET priority = 99")

    answer = cli.ok(
        "projections", "rebuild", "run_state", "--actor", "ann", "--reason", "moved house"
    )
    again = cli.ok("projections", "rebuild", "run_state", "--json").json

    assert "1 row rebuilt from 1 event;" in answer.out
    assert "1 row was wrong; the old rows are kept in ledger.rebuild_" in answer.out
    assert (again["wrong"], again["progress"]["events"], again["kept_in"]) == (0, 2, None)
    note = cli.ok("history", str(run_id), "--json").lines[-1]
    assert (note["actor"], note["text"].split(":")[0]) == ("ann", "moved house")
    cli.fails(exits.NOT_FOUND, "projections", "rebuild", "nothing")
    cli.fails(exits.USAGE, "projections", "rebuild", "run_state", "--connections", "99")
    cli.fails(exits.USAGE, "projections", "rebuild", "run_state", "--until", "2099-01-01T00:00:00Z")
    as_of = cli.ok("projections", "rebuild", "run_state", "--until", note["recorded_at"]).out
    assert "the state at that time is in ledger.rebuild_" in as_of
    assert len(cli.ok("projections", "rebuild", "run_state", "--drop-old").out.splitlines()) == 2
    cli.ok("verify")
