"""What a scrape costs, whatever sleeps; and what it says of runs that a projection left out."""

from __future__ import annotations

import json
from typing import Any

import asyncpg
import pytest

from runfold.ledger import Ledger
from runfold.projections import CatchUp, install
from runfold.projections.telemetry import metrics
from tests.support.projections import read, sizes


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a plan's nodes."""
    return [plan, *(node for part in plan.get("Plans", ()) for node in nodes(part))]


@pytest.mark.new_database
async def test_a_scrape_does_not_walk_past_all_that_sleeps(
    ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    await ledger.submit_many([{"kind": "sleepy", "delay": 3600}] * 1_000)
    await ledger.submit_many([{"kind": "lively", "priority": 1}] * 3)
    await connection.execute("ANALYZE ledger.run_state")

    statement = metrics._OLDEST  # noqa: SLF001  what is measured
    explained = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}")

    read_rows = [
        node["Actual Rows"] * node["Actual Loops"] + node.get("Rows Removed by Filter", 0)
        for node in nodes(json.loads(explained)[0]["Plan"])
        if node.get("Relation Name") == "run_state"
    ]
    assert read_rows
    assert sum(read_rows) <= 10
    found = (await metrics.look(ledger.pool))["oldest"]
    assert [row["kind"] for row in found] == ["lively"]


async def test_a_scrape_counts_the_runs_that_a_projection_left_out(ledger: Ledger) -> None:
    await install(ledger.pool, sizes())
    await read(ledger, (await ledger.submit("parse")).run_id, '"many"')
    await CatchUp(ledger.pool, sizes()).to_the_end()

    families = {family.name: family for family in metrics.families(await metrics.look(ledger.pool))}

    [sample] = families["runfold_projection_set_aside_runs"].samples
    assert (sample.labels, sample.value) == ({"projection": "sizes"}, 1)
