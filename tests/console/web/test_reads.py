"""No page scans or counts runs: what each reads is counted by the server, in functions as well."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import pytest

from runfold.console.cli.commands import top
from runfold.console.web import app
from runfold.console.web.options import Options
from runfold.console.web.pages import routers
from runfold.ledger import Ledger, Run
from runfold.projections import CatchUp, install
from runfold.projections.models.counts import RUN_COUNTS
from runfold.projections.models.spending import SPENDING
from tests.concurrency.test_plans import SCANS as _SCANS
from tests.support.databases import PROJECT
from tests.support.filling import KINDS, filled, paths
from tests.support.web import calling

RUNS: Final = 20_000
EXAMINED: Final = 300
BOUND: Final = 6_000
"""Rows that a page may read by index: of each of several lists as many as EXAMINED."""
SCANS: Final = f"""
SELECT counted.*, content.idx_scan AS contents
FROM ({_SCANS}) AS counted, pg_stat_user_tables AS content
WHERE content.schemaname = 'ledger' AND content.relname = 'payload'
"""
UNVISITED: Final = frozenset({"/bulk/{key}", "/live", "/webhooks/{webhook_id}"})
"""What is in the memory of the server, the stream of what happens, and what has no runs."""


@pytest.fixture
async def full(
    unverified_database: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Ledger, Run]]:
    """A ledger with many runs, one of which asks a person, and one connection."""
    monkeypatch.setenv("RUNFOLD_POOL_SIZE", "1")
    monkeypatch.setattr("runfold.ledger.reading.search_statements.EXAMINED", EXAMINED)
    monkeypatch.setattr("runfold.ledger.reading.search_statements.ENTRIES", 2 * EXAMINED)
    monkeypatch.setattr("runfold.ledger.reading.search_statements.LEAST", 2)
    monkeypatch.setattr("runfold.console.web.pages.whatif.EVENTS", EXAMINED)
    async with Ledger.open(unverified_database, PROJECT) as ledger:
        for kind in KINDS:
            await ledger.submit(kind)
        [lease] = await ledger.claim("w", kinds=["parse"])
        await ledger.ask_approval(lease, prompt="?")
        for projection in (RUN_COUNTS, SPENDING):
            await install(ledger.pool, projection)
            await CatchUp(ledger.pool, projection).to_the_end()
        await filled(ledger, RUNS)
        yield ledger, await ledger.get(lease.run_id)


async def read(ledger: Ledger) -> tuple[int, int, int]:
    """Return the scans so far, the rows read by index, and the look-ups of content."""
    await ledger.pool.execute("SELECT pg_stat_force_next_flush()")
    row = await ledger.pool.fetchrow(SCANS)
    assert row is not None
    return row["scans"], row["fetched"], row["contents"]


@pytest.mark.slow
async def test_no_page_or_screen_scans_or_counts_runs_and_no_list_of_runs_reads_content(
    full: tuple[Ledger, Run],
) -> None:
    ledger, asking = full
    base = f"/p/{PROJECT}"
    visited = paths(asking.run_id, asking.version)
    shown = (*visited["/runs"], *visited["/bulk"])
    lists = [base, *(base + address for address in shown), "/v1/runs"]
    others = [base + address for addresses in visited.values() for address in addresses]
    found = {}
    async with calling(app(ledger, Options(open=True))) as web:
        await web.get(base)
        for address in dict.fromkeys([*lists, *others]):
            before = await read(ledger)
            page = await web.get(address)
            after = await read(ledger)
            assert page.status_code == 200, (address, page.text[-500:])
            found[address] = tuple(n - m for n, m in zip(after, before, strict=True))

    assert {a: n for a, n in found.items() if n[0] or n[1] > BOUND} == {}
    assert {a: n for a, n in found.items() if n[2] and a in lists} == {}
    await assert_the_screen_of_what_is_alive_scans_no_runs(ledger)


async def assert_the_screen_of_what_is_alive_scans_no_runs(ledger: Ledger) -> None:
    """Fail if `runfold top` scans runs; to fill another ledger would take longer."""
    before = await read(ledger)
    seen = await top.alive(ledger)
    after = await read(ledger)

    states = "SELECT state, count(*) AS runs FROM ledger.run_state GROUP BY state"
    numbers = {row["state"]: row["runs"] for row in await ledger.pool.fetch(states)}
    assert seen["states"] == {
        state: min(numbers.get(state, 0), top.MOST) for state in map(str, top.LIVE)
    }
    assert after[0] == before[0]


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
