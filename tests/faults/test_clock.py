"""Workers whose clock is an hour off: no decision about a run depends on a worker's own clock."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from runfold.ledger import Ledger, names
from runfold.ledger.events import LeaseAcquired, LeaseHeartbeat
from tests.support.processes import assert_story, said, worker
from tests.support.working import ended

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
TTL = timedelta(seconds=6)
"""Long enough for a busy machine: no beat may be late here."""
RUNS = 4


@pytest.mark.slow
@pytest.mark.skipif(not LIBRARIES, reason="needs Debian's package libfaketime")
@pytest.mark.parametrize("off", ["+1h", "-1h"])
async def test_a_worker_whose_clock_is_an_hour_off_works_like_any_other(
    ledger: Ledger, database: str, tmp_path: Path, off: str
) -> None:
    told = {"LD_PRELOAD": str(LIBRARIES[0]), "FAKETIME": off, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    told |= {"RUNFOLD_LEASE_TTL_SECONDS": f"{TTL.total_seconds():g}"}
    runs = await ledger.submit_many([{"kind": "steps"}] * RUNS)
    again = await ledger.submit("flaky")
    later = await ledger.submit("double", 4, delay=2)
    before = await ledger.pool.fetchval("SELECT clock_timestamp()")
    log = tmp_path / "log"
    with worker(database, "--verbose", log=log, settings=told):
        for run in runs:
            await ended(ledger, run.run_id)
        assert (await ended(ledger, again)).output == 2
        assert (await ended(ledger, later)).output == 8
    after = await ledger.pool.fetchval("SELECT clock_timestamp()")

    stamps = [
        datetime.fromisoformat(line["timestamp"]) for line in said(log, names.STATE_TRANSITION)
    ]
    assert {round((stamp - before) / timedelta(hours=1)) for stamp in stamps} == {int(off[:2])}
    for run in runs:
        await assert_story(ledger, run)
        await assert_by_the_databases_clock(ledger, run.run_id, before, after)
        assert (await ledger.get(run.run_id)).attempt_count == 1
    submitted, leased, *_ = await ledger.history(later.run_id)
    assert submitted.recorded_at is not None
    assert leased.recorded_at is not None
    assert leased.recorded_at - submitted.recorded_at >= timedelta(seconds=2)


async def assert_by_the_databases_clock(
    ledger: Ledger, run_id: UUID, before: datetime, after: datetime
) -> None:
    """Fail unless all that the history says of time is of the database's clock."""
    history = await ledger.history(run_id)
    times = [event.recorded_at for event in history if event.recorded_at is not None]
    assert len(times) == len(history)
    assert before < times[1] < times[-1] < after
    assert times == sorted(times)
    for event, at in zip(history, times, strict=True):
        if isinstance(event, LeaseAcquired | LeaseHeartbeat):
            assert event.lease_until is not None
            assert abs(event.lease_until - at - TTL) < timedelta(seconds=0.1)
        if isinstance(event, LeaseHeartbeat):
            assert event.late_ms is None
