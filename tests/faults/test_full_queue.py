"""A login that fills the server's queue of NOTIFY slows wake-ups, and stops no write."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from runfold import Ledger, State
from runfold.ledger import names
from runfold.ledger.operations import wakeups
from runfold.ledger.postgres import schema
from runfold.ledger.postgres.access_holes import access_holes
from runfold.ledger.postgres.embedded.postgres import temporary_postgres
from runfold.ledger.postgres.embedded.store import UNSAFE
from runfold.ledger.postgres.urls import driver_url
from tests.support.databases import PROJECT
from tests.support.logins import login_of, with_login
from tests.support.server import ROOM
from tests.support.server_folder import server_folder
from tests.support.waiting import until

FLOOD = "SELECT pg_notify('flood', lpad(n::text, 7999, '0')) FROM generate_series(1, 200) AS n"


@pytest.fixture
def small_queue() -> Iterator[str]:
    """A server whose queue takes the fewest pages there are: half a megabyte."""
    with temporary_postgres(
        ROOM | UNSAFE | {"max_notify_queue_pages": "64"}, server_folder()
    ) as postgres:
        yield postgres.url()


@pytest.mark.slow
async def test_a_full_queue_of_notify_stops_no_operation_and_is_named(
    small_queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wakeups, "QUIET_SECONDS", 0.0)  # each submit wakes as it commits
    await schema.upgrade(small_queue)
    async with (
        Ledger.open(small_queue, PROJECT, create_project=True) as ledger,
        with_login(small_queue, "runfold_reader", rights=("read",)) as url,
    ):
        await ledger.submit("parse")
        idler: asyncpg.Connection[Any] = await asyncpg.connect(driver_url(url))
        await idler.execute("LISTEN flood")
        await idler.execute("BEGIN")
        await idler.execute("SELECT 1")
        flood: asyncpg.Connection[Any] = await asyncpg.connect(driver_url(url))
        with pytest.raises(asyncpg.ProgramLimitExceededError, match="too many notifications"):
            await flood.execute(FLOOD)

        with capture_logs() as logs:
            run = await ledger.submit("parse", {"while": "full"})
            again = await ledger.submit("parse", key="once")
            [many] = await ledger.submit_many([{"kind": "parse"}])
            leases = {lease.run_id: lease for lease in await ledger.claim("w", limit=4)}
            await ledger.release(leases[run.run_id])
            await ledger.cancel(again.run_id)
            await ledger.fail(leases[many.run_id], "E-1")
            await ledger.pause_kind("parse")
            await ledger.resume_kind("parse")
            await ledger.project.waker.flush()
            [lease] = await ledger.claim("w")
            done = await ledger.complete(lease, "done")

        assert (done.run_id, done.state) == (run.run_id, State.COMPLETED)
        assert names.WAKE_UP_FAILED in {line["event"] for line in logs}
        [hole] = [hole for hole in await access_holes(ledger.pool) if "NOTIFY" in hole.hole]
        assert f"process {idler.get_server_pid()} of login {login_of(url)}" in hole.hole
        await ledger.pool.execute(hole.remedy)

        async def is_free() -> bool:  # asking moves the queue on
            return not await ledger.pool.fetchval("SELECT pg_notification_queue_usage() > 0.5")

        await until(is_free)
        await ledger.pool.execute("SELECT pg_notify('flood', '')")
        idler.terminate()
        await flood.close()
        assert (await ledger.verify()).ok
