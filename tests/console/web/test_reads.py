"""No page scans or counts runs: what each reads is counted by the server, in functions as well."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import pytest

from runfold.console.web import app
from runfold.console.web.options import Options
from runfold.console.web.pages import routers
from runfold.ledger import Ledger, Run
from runfold.projections import CatchUp, install
from runfold.projections.models.counts import RUN_COUNTS
from runfold.projections.models.spending import SPENDING
from tests.concurrency.test_plans import SCANS as _SCANS
from tests.conftest import PROJECT
from tests.support.web import calling

RUNS: Final = 20_000
PART: Final = 1_000
EXAMINED: Final = 300
BOUND: Final = 6_000
"""Rows that a page may read by index: of each of several lists as many as EXAMINED."""
FILL: Final = """
WITH made AS MATERIALIZED (
  SELECT n, ledger.uuid7_floor((moment AT TIME ZONE 'UTC')::timestamp) AS run_id, moment,
    CASE WHEN n % 3 = 0 THEN 'parse' ELSE 'review' END AS kind,
    CASE WHEN n = 7 THEN 'failed' WHEN n % 400 = 1 THEN 'waiting_approval'
      WHEN n < $2 / 2 THEN 'completed' WHEN n % 100 = 0 THEN 'running' ELSE 'pending' END AS state
  FROM (SELECT n, now() - ($2 - n) * interval '20 ms' - interval '1 s' AS moment
    FROM generate_series($3::int, $4) AS n) AS at
), states AS (
  INSERT INTO ledger.run_state (project_id, run_id, version, hash, kind, state, priority,
    attempt_count, max_attempts, worker_id, token, lease_until, available_at, created_at,
    updated_at, completed_at, cost_usd, step_count, tags)
  SELECT $1, run_id, 2, '\\x00', kind, state, n % 2, 1, 3,
    CASE WHEN state = 'running' THEN 'w:' || n % 7 END, CASE WHEN state = 'running' THEN 2 END,
    CASE WHEN state = 'running' THEN moment END, CASE WHEN state = 'pending' THEN moment END,
    moment, moment, CASE WHEN state IN ('completed', 'failed') THEN moment END, 0, 0, '{}'
  FROM made
), contents AS (
  INSERT INTO ledger.payload (project_id, run_id, version, salt, body)
  SELECT $1, run_id, 1, '\\x00', '{"input": 1}' FROM made
)
INSERT INTO ledger.event (project_id, run_id, version, recorded_at, type, actor, state, kind,
  worker_id, name, token, attempt, lease_until, hash)
SELECT $1, run_id, version, moment, CASE WHEN version = 1 THEN 'run.submitted'
    WHEN n % 50 = 0 THEN 'write.refused' ELSE 'lease.acquired' END, 'filler',
  CASE WHEN version = 1 THEN 'pending' END, CASE WHEN version = 1 THEN kind END,
  CASE WHEN version = 2 THEN 'w' END, CASE WHEN version = 2 THEN 'heartbeat' END,
  CASE WHEN version = 2 THEN 2 END, CASE WHEN version = 2 THEN 1 END,
  CASE WHEN version = 2 THEN moment + interval '60 s' END, '\\x00'
FROM made CROSS JOIN generate_series(1, 2) AS version
"""
SCANS: Final = f"SELECT * FROM ({_SCANS}) AS counted"
QUERIES: Final = (
    "", "state:failed", "state:completed kind:parse", "kind:review", "worker:%22w:3%22",
    "key:none", "tag:none", "state:pending cost:%3E1", "error:E since:30d", "kind:seldom",
    "-state:completed attempts:%3E2",
)  # fmt: skip


def paths(run_id: object, version: int) -> dict[str, list[str]]:
    """Return for each page of the application the addresses that are visited."""
    run = f"/runs/{run_id}"
    return {
        "": [""],
        "/runs": [f"/runs?q={query}" for query in QUERIES],
        "/runs/{run_id}": [run],
        "/runs/{run_id}/tree": [f"{run}/tree"],
        "/runs/{run_id}/raw": [f"{run}/raw"],
        "/runs/{run_id}/state": [f"{run}/state?at=2&vs=1"],
        "/runs/{run_id}/events/{version}": [f"{run}/events/2"],
        "/bulk": [f"/bulk?q={query}" for query in ("kind:parse", "state:pending tag:none")],
        "/approvals": ["/approvals"],
        "/approvals/{run_id}/{version}": [f"/approvals{run[5:]}/{version}"],
        "/workers": ["/workers"],
        "/kinds": ["/kinds"],
        "/projections": ["/projections"],
        "/cost": ["/cost"],
        "/whatif": ["/whatif?ttl=1"],
        "/archive": ["/archive"],
        "/integrity": ["/integrity", f"/integrity?run={run_id}"],
        "/audit": ["/audit"],
    }


UNVISITED: Final = frozenset({"/bulk/{key}", "/live"})
"""What is in the memory of the server, and the stream of what happens."""


@pytest.fixture
async def full(
    unverified_database: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Ledger, Run]]:
    """A ledger with many runs, one of which asks a person, and one connection."""
    monkeypatch.setenv("RUNFOLD_POOL_SIZE", "1")
    monkeypatch.setattr("runfold.ledger.reading.search.EXAMINED", EXAMINED)
    monkeypatch.setattr("runfold.console.shared.bulk.EXAMINED", EXAMINED)
    monkeypatch.setattr("runfold.console.web.pages.whatif.EVENTS", EXAMINED)
    async with Ledger.open(unverified_database, PROJECT) as ledger:
        for kind in ("seldom", "review", "parse"):
            await ledger.submit(kind)
        [lease] = await ledger.claim("w", kinds=["parse"])
        await ledger.ask_approval(lease, prompt="?")
        for projection in (RUN_COUNTS, SPENDING):
            await install(ledger.pool, projection)
            await CatchUp(ledger.pool, projection).to_the_end()
        await ledger.pool.execute("ALTER TABLE ledger.event DISABLE TRIGGER fold_run_state")
        for first in range(1, RUNS, PART):  # a feed reads the events of one transaction at a time
            await ledger.pool.execute(FILL, PROJECT, RUNS, first, first + PART - 1, timeout=60)
        await ledger.pool.execute("ALTER TABLE ledger.event ENABLE ALWAYS TRIGGER fold_run_state")
        await ledger.pool.execute("VACUUM (ANALYZE)")
        yield ledger, await ledger.get(lease.run_id)


async def read(ledger: Ledger) -> tuple[int, int]:
    """Return the scans so far, and the rows read by index."""
    await ledger.pool.execute("SELECT pg_stat_force_next_flush()")
    row = await ledger.pool.fetchrow(SCANS)
    assert row is not None
    return row["scans"], row["fetched"]


@pytest.mark.slow
async def test_no_page_scans_or_counts_runs(full: tuple[Ledger, Run]) -> None:
    ledger, asking = full
    found = {}
    async with calling(app(ledger, Options(open=True))) as web:
        await web.get(f"/p/{PROJECT}")
        for addresses in paths(asking.run_id, asking.version).values():
            for address in addresses:
                before = await read(ledger)
                page = await web.get(f"/p/{PROJECT}{address}")
                after = await read(ledger)
                assert page.status_code == 200, (address, page.text[-500:])
                found[address] = (after[0] - before[0], after[1] - before[1])

    assert {a: n for a, n in found.items() if n[0] or n[1] > BOUND} == {}


def test_every_page_is_visited() -> None:
    assert pages() == set(paths("x", 1)) | UNVISITED


def pages() -> set[str]:
    """Return the paths of the project's pages, without those of their other forms."""
    base = "/p/{project}"
    return {
        path.removeprefix(base)
        for router in routers()
        for route in router.routes
        if (path := getattr(route, "path", "")).startswith(base)
        and "GET" in getattr(route, "methods", ())
        and not path.endswith((".json", ".csv"))
    }
