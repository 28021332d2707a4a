"""Several reapers at once, in processes of their own: what died is brought back once."""

from __future__ import annotations

from collections import Counter

import pytest

from runfold.ledger import Ledger
from runfold.ledger.events import LeaseExpired
from tests.support.processes import assert_accounted, worker
from tests.support.waiting import until
from tests.support.working import LONG

RUNS = 150


@pytest.mark.slow
async def test_reapers_that_sweep_together_bring_every_run_back_once(
    ledger: Ledger, database: str
) -> None:
    runs = await ledger.submit_many([{"kind": "double", "input": number} for number in range(RUNS)])
    assert len(await ledger.claim("w:dead", limit=RUNS, ttl=0.5)) == RUNS

    async def done() -> bool:
        return bool(
            await ledger.pool.fetchval("SELECT bool_and(state = 'completed') FROM ledger.run_state")
        )

    with (
        worker(database, name="reap"),
        worker(database, name="reap"),
        worker(database, settings=LONG),
        worker(database, settings=LONG),
    ):
        await until(done)

    for number, run in enumerate(runs):
        history = await ledger.history(run.run_id)
        types = Counter(event.type for event in history)
        assert [event.compensates for event in history if isinstance(event, LeaseExpired)] == [2]
        begun = types["lease.acquired"] - types["lease.released"]  # what is taken ahead may go back
        assert (begun, types["run.completed"]) == (2, 1)
        assert (await ledger.get(run.run_id)).output == 2 * number
        assert_accounted(history)
