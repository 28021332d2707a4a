"""Worker processes behind a network that cuts, delays, half-closes and swallows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from runfold.ledger import Ledger, names
from tests.support.processes import assert_story, said, worker
from tests.support.proxy import Proxy, proxied
from tests.support.runs import types
from tests.support.waiting import until
from tests.support.working import LONG, ended

RUNS = 6


async def begun(ledger: Ledger) -> None:
    """Return once a step is recorded."""
    await until(
        lambda: ledger.pool.fetchval(
            "SELECT count(*) > 0 FROM ledger.event WHERE type = 'step.completed'"
        ),
    )


async def accepted(proxy: Proxy, count: int) -> None:
    """Return once so many connections were made."""
    await until(lambda: proxy.accepted >= count)


@pytest.mark.slow
@pytest.mark.parametrize("fault", [Proxy.reset, Proxy.half_close])
async def test_connections_that_the_network_ends_cost_nothing(
    ledger: Ledger, database: str, fault: Callable[[Proxy], int]
) -> None:
    runs = await ledger.submit_many([{"kind": "steps"}] * RUNS)
    async with proxied(database) as proxy:
        with worker(proxy.url, settings=LONG):
            await begun(ledger)
            for _ in range(4):
                await until(lambda: fault(proxy))
                await accepted(proxy, proxy.accepted + 1)
            for run in runs:
                await ended(ledger, run.run_id)

    for run in runs:
        await assert_story(ledger, run)
        assert (await ledger.get(run.run_id)).attempt_count == 1


async def test_a_network_that_delays_costs_no_lease(ledger: Ledger, database: str) -> None:
    runs = await ledger.submit_many([{"kind": "steps"}] * RUNS)
    async with proxied(database) as proxy:
        with worker(proxy.url, "--concurrency", str(RUNS), settings=LONG):
            await begun(ledger)
            proxy.delay = 0.02
            for run in runs:
                await ended(ledger, run.run_id)

    for run in runs:
        await assert_story(ledger, run)
        assert (await ledger.get(run.run_id)).attempt_count == 1


@pytest.mark.slow
async def test_a_network_that_swallows_everything_is_left_behind(
    ledger: Ledger, database: str, tmp_path: Path
) -> None:
    """Connections stay open and nothing comes through: a wait for an answer is in vain."""
    log, gate = tmp_path / "log", tmp_path / "gate"
    runs = await ledger.submit_many([{"kind": "gated", "input": str(gate)}] * RUNS)
    async with proxied(database) as proxy:
        with worker(proxy.url, "--no-reap", log=log):
            await begun(ledger)
            proxy.swallow()
            await until(lambda: said(log, names.HEARTBEAT_FAILED))
            gate.touch()
            proxy.forget()
            for run in runs:
                await ended(ledger, run.run_id)

    for run in runs:
        await assert_story(ledger, run)


TTL = 4.0
"""Seconds: an outage may be longer, and no process is held up for so long."""


@pytest.mark.slow
async def test_a_network_that_comes_and_goes_loses_nothing(ledger: Ledger, database: str) -> None:
    runs = await ledger.submit_many([{"kind": "steps"}] * RUNS)
    async with proxied(database) as proxy:
        with worker(proxy.url, settings={"RUNFOLD_LEASE_TTL_SECONDS": f"{TTL}"}):
            await begun(ledger)
            proxy.refusing = True
            proxy.reset()
            await ledger.pool.fetchval("SELECT pg_sleep($1)", 2 * TTL)
            proxy.refusing = False
            for run in runs:
                await ended(ledger, run.run_id)

    assert not [run for run in runs if "lease.expired" in await types(ledger, run.run_id)]
    for run in runs:
        await assert_story(ledger, run)


@pytest.mark.slow
async def test_claims_whose_answers_are_lost_charge_no_attempt(
    ledger: Ledger, database: str, tmp_path: Path
) -> None:
    runs = await ledger.submit_many([{"kind": "double", "input": n} for n in range(40)])
    log = tmp_path / "log"
    async with proxied(database) as proxy:
        proxy.lose_answers(b"ledger.claim", 15)
        with worker(proxy.url, log=log, settings=LONG):
            over = [await ended(ledger, run.run_id) for run in runs]

    assert proxy.lost == 15
    assert {(run.state, run.attempt_count) for run in over} == {("completed", 1)}
    assert said(log, names.STRAYS_GIVEN_BACK)
