"""What is not there costs nothing: what sleeps, has ended or is somebody else's is not read."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

import asyncpg
import pytest

from runfold.console.cli.health.waiting_checks import VACANT
from runfold.console.cli.health.work_checks import ORPHANS, UNSERVED
from runfold.ledger import Ledger
from runfold.ledger.postgres.urls import driver_url
from tests.support.databases import PROJECT
from tests.support.past_month import make_month

CROWD: Final = 40_000
MARGIN: Final = 200
"""How many blocks an operation on five runs may read more for a crowd: indexes are a level deeper,
and full pages are split: 120 at most. Walking a crowd is thousands."""
ADD: Final = """
INSERT INTO ledger.run_state (project_id, run_id, version, hash, kind, state, priority,
  attempt_count, max_attempts, available_at, created_at, updated_at, cost_usd, step_count, tags)
SELECT $1, overlay(ledger.uuid7()::text PLACING left(hour.run::text, 13) FROM 1 FOR 13)::uuid, 1,
  '', $2, 'pending', 0, 0, 3, hour.ago + $3::text::interval,
  hour.ago, hour.ago, 0, 0, '{}'
FROM (SELECT hour.ago, ledger.uuid7_floor(hour.ago AT TIME ZONE 'UTC') AS run
    FROM (SELECT now() - interval '1 hour' AS ago) AS hour) AS hour,
  generate_series(1, $4::int)
ORDER BY 2  -- the indexes are filled in half the time
"""
HOLD: Final = """
UPDATE ledger.run_state SET version = 2, state = 'running', token = 2, worker_id = 'w:0',
  moved_position = nextval('ledger.event_position'), started_at = now(),
  lease_until = now() + interval '1 day', available_at = NULL
WHERE project_id = $1 AND kind = $2 AND state = 'pending'
"""
PARK: Final = """
UPDATE ledger.run_state SET version = 3, state = 'waiting_tool', token = NULL, worker_id = NULL,
  lease_until = NULL, moved_position = nextval('ledger.event_position'),
  deadline = created_at + interval '1 minute'
WHERE project_id = $1 AND kind = $2 AND worker_id = 'w:0'
"""
END_PARKED: Final = """
UPDATE ledger.run_state SET version = 4, state = 'failed', completed_at = now()
WHERE project_id = $1 AND kind = $2 AND deadline IS NOT NULL
"""
END: Final = """
UPDATE ledger.run_state SET version = 3, state = 'completed', token = NULL, worker_id = NULL,
  lease_until = NULL, completed_at = now() WHERE project_id = $1 AND kind = $2 AND worker_id = 'w:0'
"""
BEATS: Final = """
INSERT INTO ledger.event (project_id, run_id, version, recorded_at, type, actor, token, lease_until,
  hash)
SELECT $1, $2, n, now(), 'lease.heartbeat', 'w:1', $3, now() + interval '1 day', ''
FROM generate_series($4::int, $5::int) AS n
"""
LEASE: Final = "'60 seconds'::interval"


@pytest.fixture
async def crowded(unverified_database: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A ledger with a few runs, whose tables are about to be filled without events."""
    connection = await asyncpg.connect(driver_url(unverified_database))
    await make_month(connection, datetime.now(UTC) - timedelta(hours=1))  # of what ADD adds
    async with Ledger.open(unverified_database, PROJECT) as ledger:
        await ledger.submit_many([{"kind": "parse"}] * 20)
        await ledger.submit_many([{"kind": "limited"}] * 20)
        await ledger.limit_kind("limited", 10)
        await connection.execute(
            "INSERT INTO ledger.kind VALUES ($1, 'idle', $2)", PROJECT, uuid4()
        )
        await ledger.claim("w:1", limit=3, kinds=["parse", "limited"], ttl=86_400)
    yield connection
    await connection.close()


async def blocks(connection: asyncpg.Connection[Any], call: str) -> int:
    """Count the blocks that a call reads, with its functions and triggers; undo the call.

    The least of three: the first fills the session's caches.
    """
    counted: list[int] = []
    for _ in range(3):
        transaction = connection.transaction()
        await transaction.start()
        explained = await connection.fetchval(
            f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM {call}"
        )
        await transaction.rollback()
        plan = json.loads(explained)[0]["Plan"]
        counted.append(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
    return min(counted)


CHECKS: Final = {
    f"doctor's check {number}": f"({statement}) AS found"
    for number, statement in enumerate((UNSERVED, ORPHANS, VACANT))
}


async def costs(connection: asyncpg.Connection[Any], **more: str) -> dict[str, int]:
    """Count the blocks that each operation reads."""
    held = await connection.fetch(
        "SELECT run_id::text, token FROM ledger.run_state WHERE worker_id = 'w:1'"
    )
    oldest = await connection.fetchval(
        "SELECT min(run_id::text) FROM ledger.run_state WHERE project_id = $1 AND kind = 'parse'"
        " AND state = 'pending' AND available_at <= created_at",
        PROJECT,
    )
    mark = f"'{{parse}}', '{{0}}', '{{{oldest}}}', '{{NULL}}'"
    runs = f"ARRAY{[lease['run_id'] for lease in held]}::uuid[]"
    tokens = f"ARRAY{[lease['token'] for lease in held]}"
    times = f"array_fill({LEASE}, '{{{len(held)}}}')"
    workers = f"array_fill('w:1'::text, '{{{len(held)}}}')"
    late = f"array_fill(1, '{{{len(held)}}}')"
    here = f"'{PROJECT}', 'w:1'"
    calls = {
        "claim": f"ledger.claim({here}, '{{parse}}', 5, {LEASE})",
        "claim at a mark": f"ledger.claim({here}, '{{parse}}', 5, {LEASE}, {mark})",
        "claim of every kind": f"ledger.claim({here}, NULL, 5, {LEASE})",
        "claim of a limited kind": f"ledger.claim({here}, '{{limited}}', 5, {LEASE})",
        "idle look": f"ledger.claim({here}, '{{idle}}', 5, {LEASE})",
        "beat": f"ledger.heartbeat('{PROJECT}', {runs}, {tokens}, {times}, {workers})",
        "late beat": f"ledger.refuse('{PROJECT}', 'w:0', 'heartbeat', {runs}, {late})",
        "reap": f"ledger.reap('{PROJECT}', 'reaper', 100)",
        "sweep without leases": f"ledger.reap('{PROJECT}', 'reaper', 100, false)",
        "look for what is due": f"ledger.next_due('{PROJECT}', now())",
        "first look for what is due": f"ledger.next_due('{PROJECT}', '-infinity')",
        "look for parked runs": f"ledger.parked_runs('{PROJECT}')",
    }
    return {name: await blocks(connection, call) for name, call in (calls | more).items()}


def dearer(before: dict[str, int], after: dict[str, int]) -> dict[str, tuple[int, int]]:
    """Return the operations that read more than a margin more."""
    return {
        name: (before[name], after[name]) for name in before if after[name] > before[name] + MARGIN
    }


@pytest.mark.slow
async def test_what_sleeps_makes_nothing_dearer(crowded: asyncpg.Connection[Any]) -> None:
    before = await costs(crowded, **CHECKS)

    await crowded.execute(ADD, PROJECT, "parse", "1 day", CROWD)
    await crowded.execute(ADD, PROJECT, "limited", "1 day", CROWD // 10)
    await crowded.execute(ADD, PROJECT, "idle", "1 day", CROWD // 10)
    after = await costs(crowded, **CHECKS)
    await crowded.execute("ANALYZE ledger.run_state")

    assert dearer(before, after) == {}
    assert dearer(before, await costs(crowded, **CHECKS)) == {}


@pytest.mark.slow
async def test_runs_of_other_kinds_and_projects_make_nothing_dearer(
    crowded: asyncpg.Connection[Any],
) -> None:
    before = await costs(crowded)

    await crowded.execute(ADD, PROJECT, "other", "0", CROWD)
    await crowded.execute("INSERT INTO ledger.project VALUES ('other')")
    await crowded.execute(ADD, "other", "parse", "0", CROWD)
    await crowded.execute(ADD, "other", "idle", "1 day", CROWD // 10)
    after = await costs(crowded)
    await crowded.execute("ANALYZE ledger.run_state")

    assert dearer(before, after) == {}
    assert dearer(before, await costs(crowded)) == {}


@pytest.mark.slow
async def test_runs_that_others_hold_make_no_claim_and_no_beat_dearer(
    crowded: asyncpg.Connection[Any],
) -> None:
    before = await costs(crowded)

    await crowded.execute(ADD, PROJECT, "other", "0", CROWD // 4)
    await crowded.execute(HOLD, PROJECT, "other")
    after = await costs(crowded)

    assert dearer(before, after).keys() <= {"reap"}, "a reaper looks at every lease"


@asynccontextmanager
async def old_snapshot(url: str) -> AsyncIterator[None]:
    """Hold a snapshot, as a report or a dump does: vacuum removes nothing that it may see."""
    connection = await asyncpg.connect(driver_url(url))
    try:
        async with connection.transaction(isolation="repeatable_read"):
            await connection.fetchval("SELECT count(*) FROM ledger.run_state")
            yield
    finally:
        await connection.close()


async def move_marks(connection: asyncpg.Connection[Any]) -> None:
    """Do what the sweeps of a minute do to the low-water marks."""
    kinds = ["parse", "limited", "idle"]
    for _ in range(2):
        await connection.execute("SELECT ledger.move_low_water($1, $2, '-1 day')", PROJECT, kinds)


@pytest.mark.slow
async def test_runs_that_ended_under_an_old_snapshot_make_nothing_dearer(
    crowded: asyncpg.Connection[Any], unverified_database: str
) -> None:
    before = await costs(crowded)

    async with old_snapshot(unverified_database):
        for kind, many in (("parse", CROWD // 2), ("limited", CROWD // 4), ("idle", CROWD // 10)):
            await crowded.execute(ADD, PROJECT, kind, "0", many)
            await crowded.execute(ADD, PROJECT, kind, "1 second", many // 10)
            await crowded.execute(HOLD, PROJECT, kind)
            await crowded.execute(END, PROJECT, kind)
        await crowded.execute(ADD, PROJECT, "parse", "0", 20)
        await crowded.execute(ADD, PROJECT, "limited", "0", 20)
        walked = await costs(crowded)
        await move_marks(crowded)
        after = await costs(crowded)

    assert {"claim", "claim of a limited kind", "reap"} <= dearer(before, walked).keys()
    assert dearer(before, after) == {}


@pytest.mark.slow
async def test_parked_and_due_runs_that_ended_under_an_old_snapshot_make_nothing_dearer(
    crowded: asyncpg.Connection[Any], unverified_database: str
) -> None:
    before = await costs(crowded)

    async with old_snapshot(unverified_database):
        await crowded.execute(ADD, PROJECT, "parse", "1 second", CROWD // 5)
        for statement in (HOLD, PARK, END_PARKED):
            await crowded.execute(statement, PROJECT, "parse")
        await crowded.execute(ADD, PROJECT, "parse", "0", 20)
        walked = await costs(crowded)
        await move_marks(crowded)
        after = await costs(crowded)

    assert {
        "reap",
        "sweep without leases",
        "first look for what is due",
        "look for parked runs",
    } <= dearer(before, walked).keys()
    assert dearer(before, after) == {}


async def test_the_beats_of_a_long_run_make_nothing_dearer(
    crowded: asyncpg.Connection[Any],
) -> None:
    before = await costs(crowded)
    held = await crowded.fetch("SELECT run_id, token FROM ledger.run_state WHERE worker_id = 'w:1'")

    await crowded.execute("ALTER TABLE ledger.event DISABLE TRIGGER fold_run_state")
    for lease in held:
        await crowded.execute(
            BEATS, PROJECT, lease["run_id"], lease["token"], 3, CROWD // len(held)
        )
        await crowded.execute(
            "UPDATE ledger.run_state SET version = $2 WHERE run_id = $1",
            lease["run_id"],
            CROWD // len(held),
        )
    await crowded.execute("ALTER TABLE ledger.event ENABLE ALWAYS TRIGGER fold_run_state")
    after = await costs(crowded)

    assert dearer(before, after) == {}


async def test_the_count_of_blocks_shows_a_walk(crowded: asyncpg.Connection[Any]) -> None:
    before = await costs(crowded)

    await crowded.execute(
        "DROP INDEX ledger.run_claimable, ledger.run_returning;"
        " CREATE INDEX run_claimable ON ledger.run_state (project_id, kind, priority, run_id)"
        " WHERE available_at IS NOT NULL"
    )
    await crowded.execute(ADD, PROJECT, "parse", "1 day", CROWD // 10)

    assert "claim" in dearer(before, await costs(crowded))
